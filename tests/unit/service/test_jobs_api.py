import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.service.stage import Stage, field_errors, make_settings

ON_BOTH_DATABASES = True


async def test_an_accepted_job_is_queued_and_nothing_else_happens(stage: Stage) -> None:
    spec = await stage.spec()

    response = await stage.client.post("/v1/jobs", json=spec)

    job = response.json()
    assert response.status_code == 201
    assert response.headers["Location"] == job["links"]["self"] == f"/v1/jobs/{job['id']}"
    assert (job["status"], job["terminal"], job["attempt"]) == ("queued", False, 0)
    assert (job["kind"], job["name"]) == ("finetune", "sums")
    assert job["links"]["ray_dashboard"] is job["links"]["mlflow_run"] is None
    assert job == await stage.job(job["id"])
    assert not stage.ray.drivers
    assert not stage.mlflow.runs


async def test_the_record_holds_the_spec_with_its_defaults(stage: Stage) -> None:
    job = await stage.job(await stage.submit(adapter={"r": 4}))

    assert job["spec"]["adapter"]["r"] == 4
    assert job["spec"]["adapter"]["method"] == "hyplora"
    assert job["spec"]["training"]["learning_rate"] == 3e-4


async def test_a_new_job_begins_its_history_with_its_status(stage: Stage) -> None:
    job_id = await stage.submit()

    (event,) = await stage.events(job_id)

    assert event["job_id"] == job_id
    assert event["type"] == "status"
    assert event["data"] == {"status": "queued", "previous": None, "terminal": False}


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"adapter": {"curvature": -1}}, "adapter.curvature", "greater than 0"),
        ({"adapter": {"curvature": 0}}, "adapter.curvature", "greater than 0"),
        ({"adapter": {"r": 0}}, "adapter.r", "greater than or equal to 1"),
        ({"adapter": {"method": "lora", "curvature": 1}}, "adapter.curvature", "not permitted"),
        ({"adapter": {"method": "dora"}}, "adapter", "'dora' is none of 'hyplora', 'lora'"),
        ({"adapter": {"target_modules": []}}, "adapter.target_modules", "at least 1"),
        ({"nam": "x"}, "nam", "not permitted"),
        ({"name": "no spaces please"}, "name", "pattern"),
        ({"kind": "dance"}, "kind", "'dance' is none of 'finetune', 'search'"),
        ({"training": {"learning_rate": "fast"}}, "training.learning_rate", "valid number"),
        ({"data": {}}, "data.train", "required"),
        ({"data": {"train": "rows.jsonl"}}, "data.train", "give the id of an uploaded file"),
        ({"data": {"train": "http://host/rows.jsonl"}}, "data.train", "file:///, s3://, gs://"),
        ({"data": {"train": "file://rows.jsonl"}}, "data.train", "begins with file:///"),
        ({"resources": {"num_workers": 3}}, "training.batch_size", "must be a multiple"),
        ({"registry": {"alias": "v1"}}, "registry.alias", "reserved"),
    ],
)
async def test_a_spec_that_is_not_valid_is_refused_by_field(
    stage: Stage, changes: dict[str, Any], field: str, message: str
) -> None:
    response = await stage.client.post("/v1/jobs", json=await stage.spec(**changes))

    problem = response.json()
    assert response.status_code == 422
    assert problem["code"] == "spec-invalid"
    assert message in field_errors(problem)[field]
    assert field in problem["detail"]


async def test_every_wrong_field_is_named_with_the_value_that_was_given(stage: Stage) -> None:
    spec = await stage.spec(adapter={"r": 0, "curvature": -2.5}, nam="x")

    problem = (await stage.client.post("/v1/jobs", json=spec)).json()

    values = {error["field"]: error["value"] for error in problem["errors"]}
    assert values == {"adapter.r": 0, "adapter.curvature": -2.5, "nam": "x"}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "spec-invalid"),
        (b"{", "spec-invalid"),
        (b"[]", "spec-invalid"),
        (b"null", "spec-invalid"),
        (b'{"name": NaN}', "spec-invalid"),
        (b'{"name": "\\ud800", "\\udfff": 1}', "spec-invalid"),
        (b'{"name": ' + b"9" * 5000 + b"}", "spec-invalid"),
        (b"\xff\xfe", "spec-invalid"),
        (b"[" * 100_000, "spec-invalid"),
        (b" " * (1024**2 + 1), "request-too-large"),
    ],
    ids=lambda value: str(value[:20]),
)
async def test_a_body_that_is_no_spec_at_all_is_a_problem_of_the_clients(
    stage: Stage, body: bytes, code: str
) -> None:
    headers = {"Content-Type": "application/json"}

    response = await stage.client.post("/v1/jobs", content=body, headers=headers)

    assert response.json()["code"] == code
    assert 400 <= response.status_code < 500
    assert response.headers["Content-Type"] == "application/problem+json"


async def test_json_without_its_content_type_is_explained(stage: Stage) -> None:
    response = await stage.client.post("/v1/jobs", content=json.dumps(await stage.spec()))

    assert response.status_code == 422
    assert "Content-Type: application/json" in response.json()["detail"]


async def test_files_that_were_not_uploaded_are_named(stage: Stage) -> None:
    train = await stage.upload()
    data = {"train": train, "validation": "file-0123456789abcdef"}

    response = await stage.client.post("/v1/jobs", json=await stage.spec(data=data))

    problem = response.json()
    assert response.status_code == 404
    assert problem["code"] == "file-not-found"
    assert [error["field"] for error in problem["errors"]] == ["data.validation"]
    assert problem["errors"][0]["value"] == "file-0123456789abcdef"


async def test_evaluation_sets_that_were_not_uploaded_are_named_too(stage: Stage) -> None:
    missing = "file-0123456789abcdef"
    data = {"train": missing, "evaluation_sets": {"svamp": missing, "gsm8k": await stage.upload()}}

    response = await stage.client.post("/v1/jobs", json=await stage.spec(data=data))

    problem = response.json()
    assert problem["code"] == "file-not-found"
    assert [error["field"] for error in problem["errors"]] == [
        "data.train",
        "data.evaluation_sets.svamp",
    ]
    assert "data.evaluation_sets.svamp" in problem["detail"]


@pytest.fixture
async def open_stage(tmp_path: Path, database_url: str) -> AsyncIterator[Stage]:
    """A service whose jobs may read a bucket and two folders."""
    settings = make_settings(
        tmp_path,
        database_url=database_url,
        allowed_sources=("s3://bucket", "hub://*"),
        allowed_folders=("/storage", "/models"),
    )
    async with Stage(settings) as stage:
        yield stage


async def test_sources_that_are_no_uploads_are_left_to_the_workers(open_stage: Stage) -> None:
    stage = open_stage
    data = {
        "train": "s3://bucket/rows.parquet",
        "validation": "file:///storage/held-out.jsonl.gz",
        "evaluation_sets": {"gsm8k": {"dataset": "openai/gsm8k", "split": "test"}},
    }

    job = await stage.job(await stage.started(data=data))

    assert job["spec"]["data"]["train"] == "s3://bucket/rows.parquet"
    assert job["spec"]["data"]["evaluation_sets"]["gsm8k"]["dataset"] == "openai/gsm8k"
    (request,) = stage.ray.requests
    assert json.loads(request.environment["HYPLORA_JOB_TICKET"])["files"] == {}


async def test_a_base_model_in_an_allowed_folder_is_left_to_the_workers(open_stage: Stage) -> None:
    stage = open_stage
    job = await stage.job(await stage.submit(base_model="/models/on/the/cluster"))

    assert job["spec"]["base_model"] == "/models/on/the/cluster"


@pytest.mark.parametrize("job_id", ["job-0123456789abcdef", "nonsense", "job-%00", "%F0%9F"])
async def test_an_unknown_job_is_not_found(stage: Stage, job_id: str) -> None:
    reads, verbs = ["", "/events", "/logs"], ["/pause", "/resume", "/cancel"]
    requests = [("GET", read) for read in reads] + [("POST", verb) for verb in verbs]
    for method, verb in requests:
        response = await stage.client.request(method, f"/v1/jobs/{job_id}{verb}")

        assert response.status_code == 404
        assert response.json()["code"] == "job-not-found"


async def test_jobs_are_listed_newest_first_page_by_page(stage: Stage) -> None:
    train = await stage.upload()
    submitted = [await stage.submit(train=train) for _ in range(5)]

    listed: list[str] = []
    after = ""
    has_more = True
    while has_more:
        page = await stage.get(f"/v1/jobs?limit=2{after}")
        listed += [job["id"] for job in page["data"]]
        after, has_more = f"&after={listed[-1]}", page["has_more"]

    assert listed == submitted[::-1]


async def test_a_page_that_ends_with_the_last_job_says_so(stage: Stage) -> None:
    train = await stage.upload()
    for _ in range(2):
        await stage.submit(train=train)

    assert (await stage.get("/v1/jobs?limit=2"))["has_more"] is False
    assert (await stage.get("/v1/jobs?limit=1"))["has_more"] is True


async def test_a_job_that_arrives_between_two_pages_shifts_neither(stage: Stage) -> None:
    train = await stage.upload()
    submitted = [await stage.submit(train=train) for _ in range(4)]
    first = await stage.get("/v1/jobs?limit=2")
    await stage.submit(train=train)

    second = await stage.get(f"/v1/jobs?limit=2&after={first['data'][-1]['id']}")

    assert [job["id"] for job in first["data"] + second["data"]] == submitted[::-1]


async def test_jobs_are_listed_by_status(stage: Stage) -> None:
    train = await stage.upload()
    cancelled = await stage.submit(train=train)
    await stage.submit(train=train)
    await stage.client.post(f"/v1/jobs/{cancelled}/cancel")

    page = await stage.get("/v1/jobs?status=cancelled")

    assert [job["id"] for job in page["data"]] == [cancelled]


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=many", "status=asleep"])
async def test_a_list_parameter_that_is_not_valid_is_named(stage: Stage, query: str) -> None:
    response = await stage.client.get(f"/v1/jobs?{query}")

    problem = response.json()
    assert response.status_code == 422
    assert problem["code"] == "request-invalid"
    assert [error["field"] for error in problem["errors"]] == [query.partition("=")[0]]


async def test_a_page_after_an_unknown_job_is_not_found(stage: Stage) -> None:
    response = await stage.client.get("/v1/jobs?after=job-0123456789abcdef")

    assert response.json()["code"] == "job-not-found"


async def test_a_job_that_still_waits_is_cancelled_at_once(stage: Stage) -> None:
    job_id = await stage.submit()

    response = await stage.client.post(f"/v1/jobs/{job_id}/cancel")

    job = response.json()
    assert response.status_code == 200
    assert (job["status"], job["terminal"]) == ("cancelled", True)
    assert job["finished_at"] is not None
    await stage.work()
    assert not stage.ray.drivers
    assert not stage.mlflow.runs
    assert await stage.statuses(job_id) == ["queued", "cancelled"]


async def test_a_running_job_is_cancelling_until_its_driver_has_stopped(stage: Stage) -> None:
    job_id = await stage.started()

    first = await stage.client.post(f"/v1/jobs/{job_id}/cancel")
    again = await stage.client.post(f"/v1/jobs/{job_id}/cancel")

    assert first.json()["status"] == again.json()["status"] == "cancelling"
    assert first.status_code == again.status_code == 200
    assert await stage.statuses(job_id) == ["queued", "running", "cancelling"]


async def test_a_job_that_has_ended_cannot_be_cancelled(stage: Stage) -> None:
    job_id = await stage.submit()
    await stage.client.post(f"/v1/jobs/{job_id}/cancel")

    response = await stage.client.post(f"/v1/jobs/{job_id}/cancel")

    assert response.status_code == 409
    assert response.json()["code"] == "job-already-ended"
    assert "already been cancelled" in response.json()["detail"]


async def test_a_job_that_still_waits_is_paused_at_once_and_not_dispatched(stage: Stage) -> None:
    job_id = await stage.submit()

    job = await stage.ask(job_id, "pause")
    await stage.work(2)

    assert (job["status"], job["terminal"], job["attempt"]) == ("paused", False, 0)
    assert not stage.ray.drivers
    assert not stage.mlflow.runs
    assert await stage.statuses(job_id) == ["queued", "paused"]


async def test_a_job_that_was_paused_in_the_queue_is_resumed_as_if_nothing_had_been(
    stage: Stage,
) -> None:
    job_id = await stage.submit()
    await stage.ask(job_id, "pause")

    assert (await stage.ask(job_id, "resume"))["status"] == "queued"
    await stage.work()

    job = await stage.job(job_id)
    assert (job["status"], job["attempt"]) == ("running", 1)


async def test_a_job_that_was_paused_in_the_queue_is_cancelled_at_once(stage: Stage) -> None:
    job_id = await stage.submit()
    await stage.ask(job_id, "pause")

    assert (await stage.ask(job_id, "cancel"))["status"] == "cancelled"


async def test_a_resumed_job_that_waits_again_is_paused_at_once(stage: Stage) -> None:
    job_id = await stage.started()
    await stage.pause(job_id)
    await stage.ask(job_id, "resume")

    assert (await stage.ask(job_id, "pause"))["status"] == "paused"


async def test_pausing_again_changes_nothing(stage: Stage) -> None:
    job_id = await stage.started()

    answers = [await stage.ask(job_id, "pause") for _ in range(2)]
    assert [job["status"] for job in answers] == ["pausing", "pausing"]
    stage.ray.drivers.clear()
    await stage.work()

    assert (await stage.ask(job_id, "pause"))["status"] == "paused"
    assert await stage.statuses(job_id) == ["queued", "running", "pausing", "paused"]


@pytest.mark.parametrize("status", ["cancelling", "cancelled", "succeeded"])
async def test_a_job_that_ends_or_has_ended_cannot_be_paused(stage: Stage, status: str) -> None:
    job_id = await stage.started()
    if status == "succeeded":
        stage.succeed(job_id)
    else:
        await stage.ask(job_id, "cancel")
    if status == "cancelled":
        stage.ray.drivers.clear()
    if status != "cancelling":
        await stage.work()

    response = await stage.client.post(f"/v1/jobs/{job_id}/pause")

    assert response.status_code == 409
    assert response.json()["code"] == "job-not-pausable"
    assert status.removesuffix("ling") in response.json()["detail"]


@pytest.mark.parametrize("status", ["queued", "running", "pausing", "succeeded"])
async def test_a_job_that_is_not_paused_cannot_be_resumed(stage: Stage, status: str) -> None:
    job_id = await (stage.submit() if status == "queued" else stage.started())
    if status == "pausing":
        await stage.ask(job_id, "pause")
    if status == "succeeded":
        stage.succeed(job_id)
        await stage.work()

    response = await stage.client.post(f"/v1/jobs/{job_id}/resume")

    assert response.status_code == 409
    assert response.json()["code"] == "job-not-paused"
    assert status in response.json()["detail"]


async def test_many_jobs_submitted_together_are_all_kept(stage: Stage) -> None:
    train = await stage.upload()

    submitted = await asyncio.gather(*(stage.submit(train=train) for _ in range(20)))

    assert len(set(submitted)) == 20
    assert len((await stage.get("/v1/jobs?limit=200"))["data"]) == 20


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"space": {"adapter.r": {"choice": [4, 0]}}}, "space.adapter.r", "0 cannot be"),
        ({"space": {"adapter.r": {"integers": [8, 4]}}}, "space.adapter.r", "give the least first"),
        ({"space": {"adapter.r": {"between": [4, 8]}}}, "space.adapter.r", "give one of choice"),
        ({"space": {"data.train": {"choice": ["x"]}}}, "space.data.train", "fields of adapter"),
        ({"algorithm": {"name": "grid"}}, "space.adapter.curvature", "a grid needs a choice"),
        (
            {"objectives": [{"metric": "eval/loss"}, {"metric": "eval/loss"}]},
            "objectives",
            "a metric is given twice",
        ),
    ],
)
async def test_a_search_that_cannot_be_is_refused_at_the_field_at_fault(
    changes: dict[str, Any], field: str, message: str, stage: Stage
) -> None:
    response = await stage.client.post("/v1/jobs", json=await stage.search_spec() | changes)

    assert response.status_code == 422
    assert response.json()["code"] == "spec-invalid"
    assert message in field_errors(response.json())[field]

"""Jobs that are done again."""

import json
from typing import Any

import httpx
import pytest

from tests.unit.service.stage import Stage, field_errors


async def rerun(
    stage: Stage, job_id: str, overrides: Any = None, query: str = ""
) -> httpx.Response:
    body = {} if overrides is None else {"overrides": overrides}
    return await stage.client.post(f"/v1/jobs/{job_id}/rerun{query}", json=body)


@pytest.mark.parametrize("status", ["queued", "running", "paused", "cancelled", "succeeded"])
async def test_a_job_in_any_state_is_done_again(stage: Stage, status: str) -> None:
    job_id = await stage.submit(adapter={"r": 4})
    if status in {"running", "succeeded"}:
        await stage.work()
    if status == "succeeded":
        stage.succeed(job_id)
        await stage.work()
    if status in {"paused", "cancelled"}:
        await stage.ask(job_id, {"paused": "pause", "cancelled": "cancel"}[status])
    job = await stage.job(job_id)
    assert job["status"] == status

    response = await stage.client.post(f"/v1/jobs/{job_id}/rerun")

    again = response.json()
    assert response.status_code == 201
    assert response.headers["Location"] == f"/v1/jobs/{again['id']}"
    assert again["id"] != job_id
    assert (again["status"], again["attempt"], again["rerun_of"]) == ("queued", 0, job_id)
    assert again["spec"] == job["spec"]
    assert again["links"]["rerun_of"] == f"/v1/jobs/{job_id}"


async def test_overrides_change_what_they_name_and_nothing_else(stage: Stage) -> None:
    job_id = await stage.submit(adapter={"r": 4, "curvature": 2.0}, tags=["a"], priority=3)
    overrides = {
        "adapter": {"r": 16},
        "training": {"checkpoint_every_steps": None},
        "tags": ["b", "c"],
        "metadata": {"team": "maths"},
    }

    again = (await rerun(stage, job_id, overrides)).json()

    assert (again["spec"]["adapter"]["r"], again["spec"]["adapter"]["curvature"]) == (16, 2.0)
    assert again["spec"]["training"]["checkpoint_every_steps"] is None
    assert (again["tags"], again["metadata"]) == (["b", "c"], {"team": "maths"})
    assert again["priority"] == 3
    assert [job["id"] for job in (await stage.get("/v1/jobs?tag=b"))["data"]] == [again["id"]]


async def test_another_method_replaces_the_whole_adapter(stage: Stage) -> None:
    job_id = await stage.submit(adapter={"curvature": 2.0, "r": 4})

    again = (await rerun(stage, job_id, {"adapter": {"method": "lora"}})).json()

    assert again["spec"]["adapter"]["method"] == "lora"
    assert again["spec"]["adapter"]["r"] == 8


async def test_another_range_replaces_that_of_a_searched_field(stage: Stage) -> None:
    job = (await stage.client.post("/v1/jobs", json=await stage.search_spec())).json()
    space = {"adapter.curvature": {"choice": [1.0, 2.0]}}

    again = (await rerun(stage, job["id"], {"space": space})).json()

    assert again["spec"]["space"] == job["spec"]["space"] | space


async def test_a_member_of_a_list_is_named_by_its_number(stage: Stage) -> None:
    job = (await stage.client.post("/v1/jobs", json=await stage.evaluate_spec())).json()

    again = (await rerun(stage, job["id"], {"tasks": {"0": {"name": "sums"}}})).json()

    (before,), (after,) = job["spec"]["tasks"], again["spec"]["tasks"]
    assert after == before | {"name": "sums"}


@pytest.mark.parametrize(
    ("overrides", "field", "message"),
    [
        ({"adapter": {"r": 0}}, "adapter.r", "greater than or equal to 1"),
        ({"adapter": {"rank": 8}}, "adapter.rank", "not permitted"),
        ({"adapter": {"method": "lora", "curvature": 1}}, "adapter.curvature", "not permitted"),
        ({"nam": "x"}, "nam", "not permitted"),
        ({"kind": "search"}, "kind", "finetune"),
        ({"adapter": None}, "adapter", ""),
        ({"resources": {"num_workers": 3}}, "training.batch_size", "must be a multiple"),
        ([], "overrides", "valid dictionary"),
    ],
)
async def test_overrides_that_are_not_valid_are_refused_by_field(
    stage: Stage, overrides: Any, field: str, message: str
) -> None:
    job_id = await stage.submit()

    response = await rerun(stage, job_id, overrides)

    assert (response.status_code, response.json()["code"]) == (422, "spec-invalid")
    assert message in field_errors(response.json())[field]


@pytest.mark.parametrize("key", ["1", "x", "-1", "²", "\udfff"])
async def test_a_member_that_a_list_does_not_have_is_refused(stage: Stage, key: str) -> None:
    job = (await stage.client.post("/v1/jobs", json=await stage.evaluate_spec())).json()

    response = await stage.client.post(
        f"/v1/jobs/{job['id']}/rerun",
        content='{"overrides": {"tasks": {"KEY": {}}}}'.replace("KEY", json.dumps(key)[1:-1]),
        headers={"Content-Type": "application/json"},
    )

    assert (response.status_code, response.json()["code"]) == (422, "spec-invalid")
    assert "no such member" in response.json()["detail"]


async def test_files_that_were_not_uploaded_are_named(stage: Stage) -> None:
    job_id = await stage.submit()

    response = await rerun(stage, job_id, {"data": {"train": "file-0123456789abcdef"}})

    assert (response.status_code, response.json()["code"]) == (404, "file-not-found")
    assert field_errors(response.json()).keys() == {"data.train"}


async def test_a_job_that_is_not_there_cannot_be_done_again(stage: Stage) -> None:
    response = await rerun(stage, "job-0123456789abcdef")

    assert (response.status_code, response.json()["code"]) == (404, "job-not-found")


async def test_a_dry_run_of_a_rerun_queues_nothing(stage: Stage) -> None:
    job_id = await stage.submit()
    stage.ray.is_away = True

    response = await rerun(stage, job_id, {"adapter": {"r": 4}}, "?dry_run=true")

    assert response.json()["code"] == "ray-unavailable"
    assert len((await stage.get("/v1/jobs"))["data"]) == 1

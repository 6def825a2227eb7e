"""What users say of their jobs, and how they find them by it."""

from typing import Any, get_args

import pytest

from jobs.specs import JobKind, JobSpec
from tests.unit.service.stage import Stage, field_errors

LABELS = {"tags": ["nightly", "v1.2"], "metadata": {"team": "maths", "note": "A & B"}}


async def test_the_record_shows_what_the_user_said(stage: Stage) -> None:
    job = await stage.job(await stage.submit(**LABELS, priority=7))

    assert {key: job[key] for key in LABELS} == LABELS
    assert (job["project"], job["priority"], job["rerun_of"]) == ("default", 7, None)
    assert {key: job["spec"][key] for key in LABELS} == LABELS


async def test_every_kind_of_job_takes_labels(stage: Stage) -> None:
    makers = [
        stage.spec,
        stage.search_spec,
        stage.evaluate_spec,
        stage.compare_spec,
        stage.analyze_spec,
    ]
    for make in makers:
        response = await stage.client.post("/v1/jobs", json=await make(**LABELS))
        assert response.json()["tags"] == LABELS["tags"]

    kinds = [job["kind"] for job in (await stage.get("/v1/jobs?tag=nightly"))["data"]]
    assert sorted(kinds) == sorted(JobKind)


def test_the_kinds_that_lists_filter_by_are_those_of_the_specs() -> None:
    union, _ = get_args(JobSpec)

    specs = get_args(union)

    assert {get_args(spec.model_fields["kind"].annotation)[0] for spec in specs} == set(JobKind)


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"tags": ["a"] * 2}, "tags", "given twice"),
        ({"tags": [str(number) for number in range(17)]}, "tags", "at most 16"),
        ({"tags": ["a/b"]}, "tags.0", "pattern"),
        ({"tags": ["a" * 65]}, "tags.0", "pattern"),
        ({"metadata": {"team]": "a"}}, "metadata.team]", "pattern"),
        ({"metadata": {"team": 3}}, "metadata.team", "valid string"),
        ({"metadata": {"team": "a\x00"}}, "metadata.team", "pattern"),
        ({"metadata": {"team": "a" * 513}}, "metadata.team", "at most 512"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata", "at most 16"),
        ({"priority": 101}, "priority", "less than or equal to 100"),
        ({"priority": 0.5}, "priority", "valid integer"),
    ],
)
async def test_labels_that_cannot_be_kept_are_refused_by_field(
    stage: Stage, changes: dict[str, Any], field: str, message: str
) -> None:
    response = await stage.client.post("/v1/jobs", json=await stage.spec(**changes))

    assert response.status_code == 422
    found = field_errors(response.json())
    assert any(key.startswith(field) and message in text for key, text in found.items()), found


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "dcba"),
        ("kind=finetune", "cba"),
        ("kind=evaluate", "d"),
        ("kind=search", ""),
        ("name=a", "a"),
        ("project=default", "dcba"),
        ("project=other", ""),
        ("status=cancelled", "b"),
        ("tag=nightly", "ba"),
        ("tag=nightly&tag=small", "b"),
        ("tag=none", ""),
        ("metadata[team]=maths", "ca"),
        ("metadata%5Bteam%5D=maths&metadata[year]=2026", "c"),
        ("metadata[year]=maths", ""),
        ("tag=nightly&metadata[team]=maths&kind=finetune&status=queued", "a"),
    ],
)
async def test_a_list_shows_the_jobs_that_satisfy_every_filter(
    stage: Stage, query: str, expected: str
) -> None:
    await stage.submit(name="a", tags=["nightly"], metadata={"team": "maths"})
    second = await stage.submit(name="b", tags=["nightly", "small"], metadata={"team": "words"})
    await stage.submit(name="c", metadata={"team": "maths", "year": "2026"})
    await stage.client.post("/v1/jobs", json=await stage.evaluate_spec(name="d"))
    await stage.ask(second, "cancel")

    page = await stage.get(f"/v1/jobs?{query}")

    assert "".join(job["name"] for job in page["data"]) == expected


async def test_the_pages_of_a_filtered_list_hold_each_job_once(stage: Stage) -> None:
    ids = [
        await stage.submit(train=await stage.upload(), metadata={"odd": str(number % 2)})
        for number in range(10)
    ]
    found: list[str] = []
    has_more = True
    while has_more:
        after = f"&after={found[-1]}" if found else ""
        page = await stage.get(f"/v1/jobs?metadata[odd]=1&limit=2{after}")
        found += [job["id"] for job in page["data"]]
        has_more = page["has_more"]

    assert found == ids[1::2][::-1]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("kind=dance", "kind"),
        ("name=a b", "name"),
        ("project=%00", "project"),
        ("tag=%00", "tag.0"),
        ("metadata[]=a", "metadata[]"),
        ("metadata[team]=%00", "metadata[team]"),
    ],
)
async def test_a_filter_that_nothing_could_satisfy_is_refused(
    stage: Stage, query: str, field: str
) -> None:
    response = await stage.client.get(f"/v1/jobs?{query}")

    assert response.status_code == 422
    assert response.json()["code"] == "request-invalid"
    assert field in field_errors(response.json())


async def test_the_run_carries_the_labels_as_tags_and_not_as_parameters(stage: Stage) -> None:
    job_id = await stage.started(**LABELS, priority=-3)

    run_id = stage.run_id(job_id)
    tags = stage.mlflow.runs[run_id].tags
    assert tags["hyplora.tags"] == "nightly, v1.2"
    assert (tags["hyplora.metadata.team"], tags["hyplora.metadata.note"]) == ("maths", "A & B")
    assert (tags["hyplora.priority"], tags["hyplora.project"]) == ("-3", "default")
    parameters = stage.mlflow.parameters[run_id]
    assert not [key for key in parameters if key.startswith(("tags", "metadata", "priority"))]

"""Names of registered models belong to projects: who may register, promote and read."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import insert, select

from service.callers import Scope
from service.database import Database
from service.key_tokens import KeyToken
from service.tables import Job, ModelName
from tests.unit.service.stage import Stage, field_errors

ON_BOTH_DATABASES = True

OURS = KeyToken("key-00000000000000aa", "O" * 43)
THEIRS = KeyToken("key-00000000000000bb", "S" * 43)
PLAIN = KeyToken("key-00000000000000cc", "P" * 43)


@pytest.fixture
async def projects(stage: Stage) -> Stage:
    await stage.admit(OURS, Scope.SUBMIT, project="ours")
    await stage.admit(THEIRS, Scope.SUBMIT, project="theirs")
    await stage.admit(PLAIN, Scope.SUBMIT)
    return stage


async def post(
    stage: Stage, key: KeyToken, spec: dict[str, Any], query: str = "", **headers: str
) -> httpx.Response:
    """Submit a spec whose rows are uploaded with the same key."""
    authorized = {"Authorization": f"Bearer {key.text}"} | headers
    return await stage.client.post(f"/v1/jobs{query}", json=spec, headers=authorized)


async def finetune(stage: Stage, key: KeyToken, **changes: Any) -> dict[str, Any]:
    before = stage.client.headers["Authorization"]
    stage.client.headers["Authorization"] = f"Bearer {key.text}"
    try:
        return await stage.spec(**changes)
    finally:
        stage.client.headers["Authorization"] = before


async def evaluation(stage: Stage, key: KeyToken, **changes: Any) -> dict[str, Any]:
    rows = await finetune(stage, key)
    task = {"benchmark": "gsm8k", "data": rows["data"]["train"]}
    spec = {"kind": "evaluate", "name": "exam", "base_model": "tiny", "tasks": [task]}
    return spec | changes


async def claims(stage: Stage) -> dict[str, str]:
    async with stage.parts.database.reading() as session:
        return {row.name: row.project for row in await session.scalars(select(ModelName))}


@pytest.mark.parametrize(
    ("changes", "field"),
    [({}, "name"), ({"name": "other", "registry": {"model_name": "sums"}}, "registry.model_name")],
)
async def test_the_name_of_another_projects_model_is_refused_with_the_field_that_names_it(
    projects: Stage, changes: dict[str, Any], field: str
) -> None:
    assert (await post(projects, OURS, await finetune(projects, OURS))).status_code == 201
    spec = await finetune(projects, THEIRS, **changes)

    answers = [await post(projects, THEIRS, spec, query) for query in ("", "?dry_run=true")]

    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (409, "model-name-taken")
        assert list(field_errors(answer.json())) == [field]
    assert await claims(projects) == {"sums": "ours"}


async def test_a_project_registers_under_its_own_name_again(projects: Stage) -> None:
    for _ in range(2):
        assert (await post(projects, OURS, await finetune(projects, OURS))).status_code == 201

    assert await claims(projects) == {"sums": "ours"}


async def test_a_job_that_is_refused_claims_nothing(projects: Stage) -> None:
    spec = await finetune(projects, OURS, train="file-0000000000000000")

    assert (await post(projects, OURS, spec)).status_code == 404

    assert await claims(projects) == {}


async def test_of_two_projects_that_want_a_name_at_once_one_gets_it(projects: Stage) -> None:
    specs = {key: await finetune(projects, key) for key in (OURS, THEIRS)}

    answers = await asyncio.gather(*(post(projects, key, spec) for key, spec in specs.items()))

    assert sorted(answer.status_code for answer in answers) == [201, 409]
    assert len(await claims(projects)) == 1


async def test_a_request_that_is_sent_again_finds_its_job(projects: Stage) -> None:
    spec = await finetune(projects, OURS)
    keyed = {"Idempotency-Key": "one"}

    first, second = [await post(projects, OURS, spec, **keyed) for _ in range(2)]

    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["id"] == second.json()["id"]


async def test_a_model_that_was_made_without_a_job_is_the_default_projects(
    projects: Stage,
) -> None:
    projects.registry.register("sums")

    refused = await post(projects, OURS, await finetune(projects, OURS))
    taken = await post(projects, PLAIN, await finetune(projects, PLAIN))

    assert (refused.status_code, refused.json()["code"]) == (409, "model-name-taken")
    assert taken.status_code == 201
    assert await claims(projects) == {"sums": "default"}


async def test_mlflow_is_asked_only_about_names_that_nobody_has_claimed(projects: Stage) -> None:
    await post(projects, OURS, await finetune(projects, OURS))
    asked = projects.registry.num_calls
    projects.registry.is_away = True

    again = await post(projects, OURS, await finetune(projects, OURS))
    of_default = await post(projects, PLAIN, await finetune(projects, PLAIN, name="new"))
    unknown = await post(projects, OURS, await finetune(projects, OURS, name="newer"))

    assert (again.status_code, of_default.status_code) == (201, 201)
    assert (unknown.status_code, unknown.json()["code"]) == (503, "mlflow-unavailable")
    assert asked == 1
    assert projects.registry.num_calls == 2


@pytest.mark.parametrize("reference", ["models:/sums/1", "models:/sums@champion"])
@pytest.mark.parametrize("query", ["", "?dry_run=true"])
async def test_the_model_of_another_project_cannot_be_read(
    projects: Stage, reference: str, query: str
) -> None:
    await post(projects, OURS, await finetune(projects, OURS))
    as_base = await finetune(projects, THEIRS, name="mine", base_model=reference)
    as_adapter = await evaluation(projects, THEIRS, models=["base", reference])

    answers = {
        "base_model": await post(projects, THEIRS, as_base, query),
        "models.1.adapter": await post(projects, THEIRS, as_adapter, query),
    }

    for field, answer in answers.items():
        assert (answer.status_code, answer.json()["code"]) == (404, "model-not-found")
        assert list(field_errors(answer.json())) == [field]


async def test_the_model_of_another_project_is_answered_like_one_that_is_not_there(
    projects: Stage,
) -> None:
    await post(projects, OURS, await finetune(projects, OURS))
    taken = await evaluation(projects, THEIRS, base_model="models:/sums/1")
    free = await evaluation(projects, THEIRS, base_model="models:/none/1")

    foreign, unknown = [(await post(projects, THEIRS, spec)).json() for spec in (taken, free)]

    assert foreign["detail"] == unknown["detail"]
    assert foreign["errors"][0]["message"] == unknown["errors"][0]["message"]


async def test_the_own_model_can_be_read_and_promoted(projects: Stage) -> None:
    await post(projects, OURS, await finetune(projects, OURS))
    spec = await evaluation(
        projects, OURS, models=["models:/sums/1"], promote_if_better={"alias": "champion"}
    )

    assert (await post(projects, OURS, spec)).status_code == 201


async def test_the_alias_of_another_projects_model_cannot_be_promoted_to(projects: Stage) -> None:
    await post(projects, OURS, await finetune(projects, OURS))
    spec = await evaluation(
        projects, THEIRS, models=["models:/sums/1"], promote_if_better={"alias": "champion"}
    )

    answer = await post(projects, THEIRS, spec)

    assert (answer.status_code, answer.json()["code"]) == (404, "model-not-found")


async def test_a_promotion_claims_a_model_that_was_made_without_a_job(projects: Stage) -> None:
    projects.registry.register("sums")
    spec = await evaluation(
        projects, PLAIN, models=["models:/sums/1"], promote_if_better={"alias": "champion"}
    )

    assert (await post(projects, PLAIN, spec)).status_code == 201

    assert await claims(projects) == {"sums": "default"}


@pytest.mark.parametrize(
    "uri",
    [
        "models:/a\tb/1",
        "models:/sums?x=/1",
        "models://sums/1",
        "models:/sums/1/../../other/1",
        "models:/sums",
        "models:/sums%2F1",
        "models:/ sums/1",
        "models:/sums@champion/x",
        "models:/s\u00fcms/1",
    ],
)
async def test_a_reference_that_could_be_read_in_two_ways_is_refused(
    projects: Stage, uri: str
) -> None:
    spec = await evaluation(projects, OURS, base_model=uri)

    answer = await post(projects, OURS, spec)

    assert answer.status_code == 422
    assert answer.json()["code"] in {"spec-invalid", "reference-not-allowed"}
    assert list(field_errors(answer.json())) == ["base_model"]


@pytest.mark.parametrize("name", ["org/base", f"models:/m-{'0' * 32}"])
async def test_what_names_no_registered_model_is_no_projects(projects: Stage, name: str) -> None:
    spec = await evaluation(projects, OURS, base_model=name)

    assert (await post(projects, OURS, spec)).status_code == 201


async def test_lists_show_each_project_its_own_and_administrators_all(projects: Stage) -> None:
    await post(projects, OURS, await finetune(projects, OURS))
    for name in ("sums", "by-hand"):
        projects.registry.register(name, alias="champion")

    async def seen_by(key: KeyToken | None) -> dict[str, str]:
        headers = {"Authorization": f"Bearer {key.text}"} if key else {}
        answer = await projects.client.get("/v1/models", headers=headers)
        return {model["name"]: model["project"] for model in answer.json()["data"]}

    assert await seen_by(OURS) == {"sums": "ours"}
    assert await seen_by(THEIRS) == {}
    assert await seen_by(PLAIN) == {"by-hand": "default"}
    assert await seen_by(None) == {"by-hand": "default", "sums": "ours"}


async def test_a_name_stays_its_projects_when_the_model_is_deleted(projects: Stage) -> None:
    job = await post(projects, OURS, await finetune(projects, OURS))
    projects.registry.register("sums")
    await projects.ask(job.json()["id"], "cancel")
    assert (await projects.client.delete("/v1/models/sums")).status_code == 204

    answer = await post(projects, THEIRS, await finetune(projects, THEIRS))

    assert answer.json()["code"] == "model-name-taken"


async def test_a_job_of_another_project_that_needs_a_model_is_not_named(projects: Stage) -> None:
    await post(projects, OURS, await finetune(projects, OURS))
    projects.registry.register("sums")
    spec = await projects.evaluate_spec(base_model="models:/sums/1")
    job = await projects.client.post("/v1/jobs", json=spec)

    refused = await projects.client.delete(
        "/v1/models/sums/versions/1", headers={"Authorization": f"Bearer {OURS.text}"}
    )

    assert refused.json()["code"] == "model-in-use"
    assert job.json()["id"] not in refused.text
    assert "a job of another project" in refused.text


async def test_names_of_earlier_jobs_are_claimed_by_the_migration_for_the_first_project(
    database: Database,
) -> None:
    jobs: list[tuple[str, str, str, dict[str, Any]]] = [
        ("ours", "finetune", "sums", {}),
        ("theirs", "finetune", "sums", {"registry": {"model_name": None}}),
        ("theirs", "search", "tries", {"registry": {"model_name": "best"}}),
        ("theirs", "evaluate", "exam", {}),
    ]
    rows = [
        {
            "id": f"job-{place:016}",
            "project": project,
            "kind": kind,
            "name": name,
            "spec": spec,
            "status": "queued",
            "priority": 0,
            "revision": 1,
            "attempt": 0,
            "paused_attempt": 0,
            "num_restarts": 0,
            "created_at": datetime(2026, 1, 1, 0, place, tzinfo=UTC),
        }
        for place, (project, kind, name, spec) in enumerate(jobs)
    ]
    await database.migrate("0008")
    async with database.writing() as session:
        await session.execute(insert(Job.__table__), rows)

    for _ in range(2):
        await database.upgrade()
        async with database.reading() as session:
            claimed = (await session.scalars(select(ModelName))).all()

        assert {row.name: row.project for row in claimed} == {"sums": "ours", "best": "theirs"}
        assert claimed[0].created_at.tzinfo is not None
        await database.migrate("0008")

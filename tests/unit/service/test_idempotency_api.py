"""Requests that are sent twice."""

import asyncio
from typing import Any

import httpx
import pytest

from service.callers import Scope
from service.key_tokens import KeyToken
from tests.unit.service.stage import Stage

OTHERS_KEY = KeyToken("key-00000000000000aa", "O" * 43)


async def post(stage: Stage, spec: Any, key: str, query: str = "") -> httpx.Response:
    headers = {"Idempotency-Key": key}
    return await stage.client.post(f"/v1/jobs{query}", json=spec, headers=headers)


async def num_jobs(stage: Stage) -> int:
    return len((await stage.get("/v1/jobs"))["data"])


async def test_a_request_that_is_sent_again_answers_the_job_it_made(stage: Stage) -> None:
    spec = await stage.spec()
    first = await post(stage, spec, "key-1")
    await stage.work()

    second = await post(stage, dict(reversed(spec.items())), "key-1")

    assert (first.status_code, second.status_code) == (201, 200)
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    assert second.headers["Location"] == first.headers["Location"]
    assert second.json()["id"] == first.json()["id"]
    assert second.json()["status"] == "running"
    assert await num_jobs(stage) == 1


async def test_a_key_stands_for_one_request_alone(stage: Stage) -> None:
    spec = await stage.spec()
    made = (await post(stage, spec, "key-1")).json()

    response = await post(stage, spec | {"name": "other"}, "key-1")

    assert (response.status_code, response.json()["code"]) == (422, "idempotency-key-reused")
    assert made["id"] in response.json()["detail"]
    assert await num_jobs(stage) == 1


async def test_requests_of_other_keys_or_none_make_jobs_of_their_own(stage: Stage) -> None:
    spec = await stage.spec()

    responses = [await post(stage, spec, "key-1"), await post(stage, spec, "key-2")]
    responses += [await stage.client.post("/v1/jobs", json=spec) for _ in range(2)]

    assert {response.status_code for response in responses} == {201}
    assert await num_jobs(stage) == 4


async def test_requests_of_one_key_at_the_same_time_make_one_job(stage: Stage) -> None:
    spec = await stage.spec()

    responses = await asyncio.gather(*(post(stage, spec, "key-1") for _ in range(10)))

    assert sorted(response.status_code for response in responses) == [200] * 9 + [201]
    assert len({response.json()["id"] for response in responses}) == 1
    assert await num_jobs(stage) == 1


async def test_a_request_that_loses_the_race_after_its_look_answers_the_winners_job(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = await stage.spec()
    winner = (await post(stage, spec, "key-1")).json()
    from service import lifecycle

    look, looks = lifecycle.find_answered, []

    async def look_too_early(*arguments: Any) -> Any:
        looks.append(arguments)
        return None if len(looks) == 1 else await look(*arguments)

    monkeypatch.setattr(lifecycle, "find_answered", look_too_early)

    response = await post(stage, spec, "key-1")

    assert (response.status_code, response.json()["id"]) == (200, winner["id"])
    assert len(looks) == 2
    assert await num_jobs(stage) == 1


async def test_a_refused_request_leaves_its_key_free(stage: Stage) -> None:
    spec = await stage.spec()
    missing = spec | {"data": {"train": "file-0123456789abcdef"}}
    assert (await post(stage, missing, "key-1")).status_code == 404

    assert (await post(stage, spec, "key-1")).status_code == 201


async def test_projects_have_keys_of_their_own(stage: Stage) -> None:
    await stage.admit(OTHERS_KEY, Scope.SUBMIT, project="other")
    job = (await post(stage, await stage.spec(), "key-1")).json()
    stage.client.headers["Authorization"] = f"Bearer {OTHERS_KEY.text}"

    other = await post(stage, await stage.spec(name="differences"), "key-1")

    assert other.status_code == 201
    assert (other.json()["id"] != job["id"], other.json()["project"]) == (True, "other")


@pytest.mark.parametrize("key", ["", "a b", "k" * 256])
async def test_a_key_that_cannot_be_kept_is_refused(stage: Stage, key: str) -> None:
    response = await post(stage, await stage.spec(), key)

    assert (response.status_code, response.json()["code"]) == (422, "request-invalid")


async def test_a_dry_run_takes_no_key(stage: Stage) -> None:
    spec = await stage.spec()
    stage.ray.is_away = True
    assert (await post(stage, spec, "key-1", "?dry_run=true")).status_code == 503

    assert (await post(stage, spec, "key-1")).status_code == 201


async def test_a_rerun_that_is_sent_again_answers_the_job_it_made(stage: Stage) -> None:
    job_id = await stage.submit()
    path, headers = f"/v1/jobs/{job_id}/rerun", {"Idempotency-Key": "key-1"}

    first = await stage.client.post(path, headers=headers)
    second = await stage.client.post(path, headers=headers)
    other = await stage.client.post(path, headers=headers, json={"overrides": {"priority": 1}})

    assert (first.status_code, second.status_code, other.status_code) == (201, 200, 422)
    assert first.json()["id"] == second.json()["id"]

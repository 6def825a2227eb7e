import asyncio
from collections.abc import AsyncGenerator

import pytest

from service.boundaries import DriverState
from service.errors import RayUnavailableError
from tests.unit.service.stage import Stage


async def log(stage: Stage, job_id: str, query: str = "") -> str:
    response = await stage.client.get(f"/v1/jobs/{job_id}/logs{query}")
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    return response.text


async def test_a_job_that_waits_has_an_empty_log(stage: Stage) -> None:
    assert await log(stage, await stage.submit()) == ""


async def test_a_running_jobs_log_comes_from_ray(stage: Stage) -> None:
    job_id = await stage.started()
    stage.ray.logs[f"{job_id}-a1"] = "loading the model\nstep 1 ü\n"

    assert await log(stage, job_id) == "loading the model\nstep 1 ü\n"


async def test_a_log_that_ray_no_longer_has_comes_from_the_run(stage: Stage) -> None:
    job_id = await stage.started()
    stage.ray.logs[f"{job_id}-a1"] = "all of it\n"
    stage.succeed(job_id)
    await stage.work()
    stage.ray.logs.clear()

    assert await log(stage, job_id) == "all of it\n"


async def test_an_ended_jobs_log_can_be_read_while_ray_is_away(stage: Stage) -> None:
    job_id = await stage.started()
    stage.ray.logs[f"{job_id}-a1"] = "all of it\n"
    stage.succeed(job_id)
    await stage.work()
    stage.ray.is_away = True

    assert await log(stage, job_id) == "all of it\n"


@pytest.mark.parametrize(
    ("part", "code"), [("ray", "ray-unavailable"), ("mlflow", "mlflow-unavailable")]
)
async def test_a_log_that_cannot_be_reached_is_a_problem(
    stage: Stage, part: str, code: str
) -> None:
    job_id = await stage.started()
    getattr(stage, part).is_away = True

    response = await stage.client.get(f"/v1/jobs/{job_id}/logs")

    assert response.status_code == 503
    assert response.json()["code"] == code


async def test_the_log_of_an_earlier_attempt_can_be_read(stage: Stage) -> None:
    job_id = await stage.started()
    stage.ray.logs[f"{job_id}-a1"] = "first\n"
    stage.ray.end(f"{job_id}-a1", DriverState.FAILED)
    await stage.work()
    stage.ray.logs[f"{job_id}-a2"] = "second\n"

    assert await log(stage, job_id) == "second\n"
    assert await log(stage, job_id, "?attempt=1") == "first\n"
    assert await log(stage, job_id, "?attempt=3") == ""


@pytest.mark.parametrize("attempt", ["0", "-1", "x", "99999999999999999999"])
async def test_an_attempt_that_cannot_be_is_refused(stage: Stage, attempt: str) -> None:
    response = await stage.client.get(f"/v1/jobs/{await stage.submit()}/logs?attempt={attempt}")

    assert response.status_code == 422


async def test_a_followed_log_goes_through_all_attempts_until_the_job_ends(stage: Stage) -> None:
    job_id = await stage.submit()
    following = asyncio.create_task(log(stage, job_id, "?follow=true"))

    await stage.work()
    stage.ray.logs[f"{job_id}-a1"] = "first\n"
    stage.ray.end(f"{job_id}-a1", DriverState.FAILED)
    await stage.work()
    stage.ray.logs[f"{job_id}-a2"] = "second\n"
    await asyncio.sleep(0.01)
    stage.ray.logs[f"{job_id}-a2"] += "third\n"
    assert not following.done()
    stage.succeed(job_id, attempt=2)
    await stage.work()

    assert await following == "first\n--- attempt 2 ---\nsecond\nthird\n"


async def test_a_followed_log_goes_on_after_a_pause_though_ray_has_forgotten_the_driver(
    stage: Stage,
) -> None:
    job_id = await stage.started()
    stage.ray.logs[f"{job_id}-a1"] = "first\n"
    await stage.pause(job_id)
    stage.ray.drivers.clear()
    stage.ray.logs.clear()
    following = asyncio.create_task(log(stage, job_id, "?follow=true"))

    await asyncio.sleep(0.01)
    assert not following.done()
    await stage.ask(job_id, "resume")
    await stage.work()
    stage.ray.logs[f"{job_id}-a2"] = "second\n"
    stage.succeed(job_id, attempt=2)
    await stage.work()

    assert await following == "first\n--- attempt 2 ---\nsecond\n"


async def test_a_followed_log_of_an_ended_job_is_its_whole_log(stage: Stage) -> None:
    job_id = await stage.started()
    stage.ray.logs[f"{job_id}-a1"] = "all of it\n"
    stage.succeed(job_id)
    await stage.work()
    stage.ray.logs.clear()

    assert await log(stage, job_id, "?follow=true") == "all of it\n"


async def test_a_followed_log_of_a_cancelled_job_ends(stage: Stage) -> None:
    job_id = await stage.submit()
    following = asyncio.create_task(log(stage, job_id, "?follow=true"))

    await stage.client.post(f"/v1/jobs/{job_id}/cancel")

    assert await following == ""


async def test_a_followed_log_is_taken_up_where_the_connection_broke(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await stage.started()
    whole = "one\ntwo\nthree\n"
    connections = iter([["one\n", "tw"], ["one\ntwo\n", "thr"], ["one\n", "two\n", "three\n"]])

    async def break_twice(_submission_id: str) -> AsyncGenerator[str]:
        pieces = next(connections)
        for piece in pieces:
            yield piece
        if "".join(pieces) != whole:
            raise RayUnavailableError("the connection broke")
        stage.succeed(job_id)

    monkeypatch.setattr(stage.ray, "follow_log", break_twice)
    following = asyncio.create_task(log(stage, job_id, "?follow=true"))
    while not (await stage.job(job_id))["terminal"]:
        await stage.work()

    assert await following == whole


async def test_what_a_followed_log_missed_comes_from_the_run_once_the_job_has_ended(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await stage.started()
    stage.ray.logs[f"{job_id}-a1"] = "one\ntwo\n"

    async def break_after_the_first_line(_submission_id: str) -> AsyncGenerator[str]:
        yield "one\n"
        raise RayUnavailableError("the connection broke")

    monkeypatch.setattr(stage.ray, "follow_log", break_after_the_first_line)
    following = asyncio.create_task(log(stage, job_id, "?follow=true"))
    await asyncio.sleep(0.01)
    stage.succeed(job_id)
    await stage.work()

    assert await following == "one\ntwo\n"

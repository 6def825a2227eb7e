import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from service.boundaries import DriverState, RunStatus
from service.errors import DatabaseUnavailableError
from service.leases import Lease
from tests.unit.service.fakes import Killed
from tests.unit.service.stage import Stage, make_settings

ON_BOTH_DATABASES = True

LAST = 15
MOMENTS = list(itertools.product(range(1, LAST + 1), [False, True]))
"""Each call to the outside that a job takes, and one that it does not; before or after its effect.
"""


async def work_until_killed(stage: Stage) -> bool:
    """Let the control loop turn; if the service is killed in it, start another and say so."""
    try:
        await stage.work()
    except Killed:
        await stage.restart()
        return True
    return False


async def work_through_death(stage: Stage) -> None:
    """Let the control loop turn; if the service is killed in it, let another's turn."""
    if await work_until_killed(stage):
        await stage.work()


def assert_every_moment_is_tested(stage: Stage, kill_at: int) -> None:
    was_killed = stage.fault.kill_at is None
    assert not (was_killed and kill_at == LAST), "a job takes more calls than are tested"


@pytest.mark.parametrize(("kill_at", "takes_effect"), MOMENTS)
async def test_a_service_killed_at_any_moment_leaves_one_run_one_driver_and_the_true_end(
    tmp_path: Path, kill_at: int, takes_effect: bool
) -> None:
    async with Stage(make_settings(tmp_path)) as stage:
        job_id = await stage.submit()
        stage.fault.kill_at, stage.fault.takes_effect = kill_at, takes_effect

        await work_through_death(stage)
        await work_through_death(stage)
        stage.ray.logs[f"{job_id}-a1"] = "the driver's log"
        stage.mlflow.tag(stage.run_id(job_id), DATA_SUMMARY="100 rows")
        stage.succeed(job_id)
        await work_through_death(stage)

        assert_every_moment_is_tested(stage, kill_at)
        assert await stage.statuses(job_id) == ["queued", "running", "succeeded"]
        assert await stage.messages(job_id) == [{"level": "info", "text": "100 rows"}]
        assert [request.submission_id for request in stage.ray.requests] == [f"{job_id}-a1"]
        assert len(stage.mlflow.runs) == 1
        assert stage.mlflow.logs == {(stage.run_id(job_id), 1): "the driver's log"}


@pytest.mark.parametrize(("kill_at", "takes_effect"), MOMENTS)
async def test_a_service_killed_at_any_moment_carries_a_cancellation_out(
    tmp_path: Path, kill_at: int, takes_effect: bool
) -> None:
    async with Stage(make_settings(tmp_path)) as stage:
        job_id = await stage.submit()
        stage.fault.kill_at, stage.fault.takes_effect = kill_at, takes_effect

        await work_until_killed(stage)
        await stage.client.post(f"/v1/jobs/{job_id}/cancel")
        await work_through_death(stage)
        for submission_id in stage.ray.stops:
            stage.ray.end(submission_id, DriverState.STOPPED)
        await work_through_death(stage)

        assert_every_moment_is_tested(stage, kill_at)
        assert (await stage.statuses(job_id))[-1] == "cancelled"
        assert not any(driver.state.is_live for driver in stage.ray.drivers.values())
        assert {run.status for run in stage.mlflow.runs.values()} <= {RunStatus.KILLED}


@pytest.mark.parametrize(("kill_at", "takes_effect"), MOMENTS)
async def test_a_service_killed_at_any_moment_carries_a_pause_out(
    tmp_path: Path, kill_at: int, takes_effect: bool
) -> None:
    async with Stage(make_settings(tmp_path)) as stage:
        job_id = await stage.submit()
        stage.fault.kill_at, stage.fault.takes_effect = kill_at, takes_effect

        await work_until_killed(stage)
        await stage.ask(job_id, "pause")
        await work_through_death(stage)
        for submission_id in stage.ray.stops:
            stage.ray.end(submission_id, DriverState.STOPPED)
        await work_through_death(stage)

        assert_every_moment_is_tested(stage, kill_at)
        assert (await stage.statuses(job_id))[-1] == "paused"
        assert not any(driver.state.is_live for driver in stage.ray.drivers.values())
        assert {run.status for run in stage.mlflow.runs.values()} <= {RunStatus.SCHEDULED}


@pytest.mark.parametrize(("kill_at", "takes_effect"), MOMENTS)
async def test_a_service_killed_at_any_moment_resumes_a_job_once(
    tmp_path: Path, kill_at: int, takes_effect: bool
) -> None:
    async with Stage(make_settings(tmp_path)) as stage:
        job_id = await stage.started()
        await stage.pause(job_id)
        await stage.ask(job_id, "resume")
        stage.fault.num_calls = 0
        stage.fault.kill_at, stage.fault.takes_effect = kill_at, takes_effect

        await work_through_death(stage)
        await work_through_death(stage)

        assert_every_moment_is_tested(stage, kill_at)
        job = await stage.job(job_id)
        assert (job["status"], job["attempt"]) == ("running", 2)
        assert set(stage.ray.drivers) == {f"{job_id}-a1", f"{job_id}-a2"}
        assert [run.status for run in stage.mlflow.runs.values()] == [RunStatus.RUNNING]


@pytest.mark.parametrize(("kill_at", "takes_effect"), MOMENTS)
async def test_a_service_killed_at_any_moment_counts_a_lost_driver_once(
    tmp_path: Path, kill_at: int, takes_effect: bool
) -> None:
    async with Stage(make_settings(tmp_path)) as stage:
        job_id = await stage.submit()
        await stage.work()
        stage.ray.end(f"{job_id}-a1", DriverState.FAILED)
        stage.fault.num_calls = 0
        stage.fault.kill_at, stage.fault.takes_effect = kill_at, takes_effect

        await work_through_death(stage)
        await work_through_death(stage)

        assert_every_moment_is_tested(stage, kill_at)
        job = await stage.job(job_id)
        assert (job["status"], job["attempt"]) == ("running", 2)
        assert set(stage.ray.drivers) == {f"{job_id}-a1", f"{job_id}-a2"}
        assert len(stage.mlflow.runs) == 1


@pytest.mark.parametrize("part", ["ray", "mlflow"])
async def test_nothing_changes_while_a_part_is_away_and_all_goes_on_afterwards(
    stage: Stage, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = await stage.started()
    stage.succeed(job_id)
    getattr(stage, part).is_away = True

    async with running_loop(stage):
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert (await stage.job(job_id))["status"] == "running"
        getattr(stage, part).is_away = False
        await until_terminal(stage, job_id)

    assert (await stage.job(job_id))["status"] == "succeeded"
    warnings = [record for record in caplog.records if "out of reach" in record.message]
    assert len(warnings) == 1


async def test_the_loop_survives_an_error_that_nobody_foresaw(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = await stage.submit()
    ping, failures = stage.ray.ping, iter([ZeroDivisionError("surprise")])

    async def fail_once() -> None:
        for error in failures:
            raise error
        await ping()

    monkeypatch.setattr(stage.ray, "ping", fail_once)

    async with running_loop(stage):
        await until(lambda: bool(stage.ray.drivers))

    assert "surprise" in caplog.text
    assert list(stage.ray.drivers) == [f"{job_id}-a1"]


async def test_a_database_that_is_away_is_told_of_once_and_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    num_asked = 0

    async def fail(_: Lease) -> bool:
        nonlocal num_asked
        num_asked += 1
        raise DatabaseUnavailableError("the database does not answer")

    async with Stage(make_settings(tmp_path, lease_ttl_s=0.003)) as stage:
        monkeypatch.setattr(Lease, "acquire", fail)
        monkeypatch.setattr(Lease, "release", fail)
        async with running_loop(stage):
            await until(lambda: num_asked > 3)

    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "the lease is left to expire" in caplog.text


async def test_of_two_replicas_one_works_and_the_other_takes_over(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, lease_ttl_s=0.3)
    async with Stage(settings) as first, Stage(settings) as second:
        job_id = await first.submit()
        async with running_loop(first):
            await until(lambda: bool(first.ray.drivers))
            async with running_loop(second):
                await asyncio.sleep(0.05)
                assert not second.ray.drivers
                assert not second.mlflow.runs

        second.ray.drivers, second.mlflow.runs = first.ray.drivers, first.mlflow.runs
        first.succeed(job_id)
        async with running_loop(second):
            await until_terminal(second, job_id)

        assert (await second.job(job_id))["status"] == "succeeded"


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise TimeoutError


async def until_terminal(stage: Stage, job_id: str) -> None:
    for _ in range(10_000):
        if (await stage.job(job_id))["terminal"]:
            return
        await asyncio.sleep(0.001)
    raise TimeoutError


class running_loop:  # noqa: N801 (reads as a function)
    """The control loop in the background."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._stage.parts.control_loop.run())

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

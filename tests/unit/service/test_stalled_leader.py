"""A leader that is stopped in the middle of a round, loses its lease, and goes on."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from service.boundaries import DriverState, RunStatus
from service.leases import LeaseLostError
from service.states import JobStatus
from tests.unit.service.stage import Stage

ON_BOTH_DATABASES = True


@pytest.fixture
async def other(stage: Stage) -> AsyncIterator[Stage]:
    """Another replica on the same database, with the same Ray and the same MLflow."""
    other = Stage(stage.settings)
    other.ray, other.mlflow = stage.ray, stage.mlflow
    async with other:
        yield other


async def stall_in(
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    call: str,
    meanwhile: Callable[[], Awaitable[Any]],
) -> None:
    """Let the stage's round stand still before its next call to the outside."""
    await stage.lead()
    outside = getattr(stage, part)
    go_on = getattr(outside, call)

    async def stall(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(outside, call, go_on)
        await meanwhile()
        return await go_on(*arguments, **options)

    monkeypatch.setattr(outside, call, stall)
    await stage.parts.control_loop.work_once()


def live_drivers(stage: Stage) -> list[str]:
    return [name for name, driver in stage.ray.drivers.items() if driver.state.is_live]


@pytest.mark.parametrize("leads_again", [False, True])
async def test_it_does_not_fill_places_that_another_has_filled(
    stage: Stage, other: Stage, monkeypatch: pytest.MonkeyPatch, leads_again: bool
) -> None:
    train = await stage.upload()
    for _ in range(2):
        await stage.submit(train=train)

    async def others_round() -> None:
        urgent = {"train": train, "priority": 9}
        jobs = [await other.submit(**urgent) for _ in range(2)]
        await other.work()
        assert live_drivers(stage) == [f"{job_id}-a1" for job_id in jobs]
        if leads_again:
            await stage.lead()

    if leads_again:
        await stall_in(stage, monkeypatch, "ray", "ping", others_round)
    else:
        with pytest.raises(LeaseLostError):
            await stall_in(stage, monkeypatch, "ray", "ping", others_round)

    assert len(stage.ray.requests) == stage.settings.max_live_drivers


async def test_it_does_not_submit_again_what_another_has_submitted(
    stage: Stage, other: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await stage.submit()

    async def others_round() -> None:
        await other.work()
        stage.ray.drivers.clear()
        await stage.lead()

    await stall_in(stage, monkeypatch, "ray", "ping", others_round)

    assert [request.submission_id for request in stage.ray.requests] == [f"{job_id}-a1"]


async def test_a_run_that_was_opened_for_a_leader_that_died_goes_when_the_job_ends(
    stage: Stage,
) -> None:
    job_id = await stage.started()
    await stage.mlflow.create(job_id, "sums", "python -m jobs.finetune")
    run_id = next(iter(stage.mlflow.runs))
    stage.mlflow.tag(run_id, MODEL_NAME="sums", MODEL_VERSION="3")
    stage.ray.end(f"{job_id}-a1", DriverState.SUCCEEDED)

    await stage.work()

    assert (await stage.job(job_id))["status"] == "succeeded"
    assert list(stage.mlflow.runs) == [run_id]


async def test_a_run_that_it_opens_late_does_not_become_the_jobs(
    stage: Stage, other: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await stage.submit()

    async def others_round() -> None:
        await other.work()
        other.succeed(job_id)

    with pytest.raises(LeaseLostError):
        await stall_in(stage, monkeypatch, "mlflow", "create", others_round)
    await other.work()

    assert await other.statuses(job_id) == ["queued", "running", "succeeded"]
    assert len(stage.ray.requests) == 1
    assert len(stage.mlflow.runs) == 1


@pytest.mark.parametrize("verb", ["pause", "cancel"])
async def test_a_driver_that_it_submits_late_is_stopped(
    stage: Stage, other: Stage, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    job_id = await stage.submit()

    async def others_round() -> None:
        await other.ask(job_id, verb)
        await other.work()
        assert (await other.job(job_id))["status"] in {"paused", "cancelled"}

    await stall_in(stage, monkeypatch, "ray", "submit", others_round)

    assert stage.ray.stops == [f"{job_id}-a1"]
    assert (await other.job(job_id))["status"] in {"paused", "cancelled"}


async def test_a_lost_driver_that_another_has_replaced_is_counted_once(
    stage: Stage, other: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await stage.started()
    stage.ray.end(f"{job_id}-a1", DriverState.FAILED)

    with pytest.raises(LeaseLostError):
        await stall_in(stage, monkeypatch, "ray", "log", other.work)

    job = await other.job(job_id)
    assert (job["status"], job["attempt"]) == ("running", 2)
    assert live_drivers(stage) == [f"{job_id}-a2"]


@pytest.mark.parametrize("leads_again", [False, True])
async def test_it_does_not_fail_a_job_that_went_on_meanwhile(
    stage: Stage, other: Stage, monkeypatch: pytest.MonkeyPatch, leads_again: bool
) -> None:
    job_id = await stage.started()
    for attempt in (1, 2, 3):
        stage.ray.end(f"{job_id}-a{attempt}", DriverState.FAILED)
        if attempt < 3:
            await stage.work()

    async def others_round() -> None:
        await other.ask(job_id, "pause")
        await other.work()
        await other.ask(job_id, "resume")
        await other.work()
        if leads_again:
            await stage.lead()

    if leads_again:
        await stall_in(stage, monkeypatch, "ray", "log", others_round)
    else:
        with pytest.raises(LeaseLostError):
            await stall_in(stage, monkeypatch, "ray", "log", others_round)

    job = await other.job(job_id)
    assert (job["status"], job["attempt"]) == ("running", 4)


async def test_it_writes_no_old_progress(
    stage: Stage, other: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await stage.started()
    stage.mlflow.measure(stage.run_id(job_id), {"progress/step": 1.0})
    read = stage.mlflow.read

    async def read_before_the_stall(run_id: str) -> Any:
        seen = await read(run_id)
        monkeypatch.setattr(stage.mlflow, "read", read)
        stage.mlflow.measure(run_id, {"progress/step": 9.0})
        await other.work()
        return seen

    await stage.lead()
    monkeypatch.setattr(stage.mlflow, "read", read_before_the_stall)
    with pytest.raises(LeaseLostError):
        await stage.parts.control_loop.work_once()

    assert (await other.job(job_id))["progress"]["step"] == 9


async def test_users_are_answered_by_replicas_that_do_not_lead(stage: Stage, other: Stage) -> None:
    await stage.lead()

    job_id = await other.submit()
    await other.ask(job_id, "cancel")

    assert (await stage.job(job_id))["status"] == JobStatus.CANCELLED
    assert all(run.status is not RunStatus.RUNNING for run in stage.mlflow.runs.values())

import json
import logging
import shlex
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from jobs.finetune_specs import FinetuneSpec
from jobs.search_specs import SearchSpec
from jobs.tickets import TICKET_VARIABLE, JobTicket
from service.boundaries import DriverState, RunStatus
from service.dispatcher import flatten
from service.errors import MlflowUnavailableError, RayUnavailableError
from tests.unit.service.stage import KEY, KEY_HASH, TOKEN, Stage, make_settings


async def test_a_driver_gets_everything_it_needs_to_know(stage: Stage) -> None:
    train, validation = await stage.upload(), await stage.upload()

    job_id = await stage.started(data={"train": train, "validation": validation})

    (request,) = stage.ray.requests
    ticket = JobTicket.model_validate_json(request.environment[TICKET_VARIABLE])
    assert request.submission_id == f"{job_id}-a1"
    assert request.entrypoint == "python -m jobs.finetune"
    assert request.metadata == {"job_id": job_id, "name": "sums", "kind": "finetune"}
    assert request.environment["MLFLOW_TRACKING_URI"] == stage.settings.mlflow_tracking_uri
    assert (ticket.job_id, ticket.attempt, ticket.run_id) == (job_id, 1, stage.run_id(job_id))
    assert ticket.storage_path == stage.settings.storage_path
    assert set(ticket.files) == {train, validation}
    stored = stage.settings.files_dir / ticket.files[train].sha256
    assert ticket.files[train].uri == str(stored)
    assert ticket.files[train].num_rows == 1


@pytest.mark.parametrize(
    "text", ["a; rm -rf / #", "$(id)", "`id`", "a && id", "| id", "a\nid", "'\"\\", "--help"]
)
async def test_nothing_that_a_user_wrote_reaches_the_shell(stage: Stage, text: str) -> None:
    train = await stage.upload()
    data = {"train": train, "columns": {"instruction": text}}
    adapter = {"target_modules": [text], "rank_pattern": {text: 4}}

    await stage.started(data=data, adapter=adapter, metadata={"note": text})

    (request,) = stage.ray.requests
    assert request.entrypoint == "python -m jobs.finetune"
    assert set(request.environment) == {
        TICKET_VARIABLE, "MLFLOW_TRACKING_URI", "RAY_JOB_STOP_SIGNAL", "RAY_JOB_STOP_WAIT_TIME_S",
    }  # fmt: skip


@given(st.text(max_size=80))
def test_a_name_that_a_spec_takes_means_nothing_to_a_shell(name: str) -> None:
    spec = {"kind": "finetune", "name": name, "base_model": "a", "data": {"train": "s3://b/c"}}
    with suppress(ValidationError):
        accepted = FinetuneSpec.model_validate(spec).name
        assert shlex.quote(accepted) == accepted
        assert shlex.split(f"run {accepted}") == ["run", accepted]


async def test_no_secret_travels_with_a_driver_or_is_told_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with Stage(make_settings(tmp_path)) as stage:
        job_id = await stage.started(metadata={"note": "a telling fact"})
        stage.fail(job_id, "data-invalid", "no rows")
        await stage.work()
        told = [
            stage.ray.requests[0].environment,
            stage.ray.requests[0].metadata,
            stage.mlflow.parameters,
            stage.mlflow.documents,
            stage.mlflow.runs,
            await stage.events(job_id),
            await stage.job(job_id),
            caplog.text,
        ]
    assert "submitted job-" in caplog.text, "records of the service were taken"
    assert "a telling fact" not in caplog.text
    for secret in (TOKEN, KEY.secret, KEY_HASH):
        assert secret not in str(told)


async def test_a_driver_that_is_stopped_has_the_operators_time_for_a_last_checkpoint(
    tmp_path: Path,
) -> None:
    async with Stage(make_settings(tmp_path, stop_grace_s=90)) as stage:
        await stage.started()

        environment = stage.ray.requests[0].environment
        assert environment["RAY_JOB_STOP_SIGNAL"] == "SIGTERM"
        assert environment["RAY_JOB_STOP_WAIT_TIME_S"] == "90"


async def test_the_run_holds_the_resolved_spec(stage: Stage) -> None:
    job_id = await stage.started(adapter={"r": 4})

    run_id = stage.run_id(job_id)
    assert stage.mlflow.runs[run_id].tags["name"] == "sums"
    assert stage.mlflow.parameters[run_id]["adapter.r"] == "4"
    assert stage.mlflow.parameters[run_id]["training.batch_size"] == "16"
    document = stage.mlflow.documents[run_id]
    assert document["job_id"] == job_id
    assert "attempt" not in document


async def test_a_submitted_job_links_to_its_driver_and_its_run(stage: Stage) -> None:
    job_id = await stage.started()

    links = (await stage.job(job_id))["links"]
    assert links["ray_dashboard"] == f"http://127.0.0.1:8265/#/jobs/{job_id}-a1"
    assert links["mlflow_run"] == (
        f"http://127.0.0.1:5000/#/experiments/7/runs/{stage.run_id(job_id)}"
    )


async def test_no_more_drivers_live_than_allowed_and_the_oldest_jobs_go_first(
    stage: Stage,
) -> None:
    train = await stage.upload()
    jobs = [await stage.submit(train=train) for _ in range(4)]

    await stage.work(3)
    assert set(stage.ray.drivers) == {f"{jobs[0]}-a1", f"{jobs[1]}-a1"}

    stage.succeed(jobs[1])
    await stage.work()

    assert [(await stage.job(job_id))["status"] for job_id in jobs] == [
        "running",
        "succeeded",
        "running",
        "queued",
    ]


async def test_a_job_that_is_being_cancelled_still_takes_its_place(stage: Stage) -> None:
    train = await stage.upload()
    jobs = [await stage.submit(train=train) for _ in range(3)]
    await stage.work()
    await stage.client.post(f"/v1/jobs/{jobs[0]}/cancel")

    await stage.work(2)

    assert (await stage.job(jobs[2]))["status"] == "queued"


async def test_a_pausing_job_takes_a_place_and_a_paused_one_does_not(stage: Stage) -> None:
    train = await stage.upload()
    jobs = [await stage.submit(train=train) for _ in range(3)]
    await stage.work()
    await stage.ask(jobs[0], "pause")
    await stage.work(2)
    assert (await stage.job(jobs[2]))["status"] == "queued"

    stage.ray.end(f"{jobs[0]}-a1", DriverState.STOPPED)
    await stage.work()

    statuses = [(await stage.job(job_id))["status"] for job_id in jobs]
    assert statuses == ["paused", "running", "running"]


async def test_a_resumed_job_goes_on_as_the_next_attempt_of_the_same_run(stage: Stage) -> None:
    job_id = await stage.started()
    started_at = (await stage.job(job_id))["started_at"]
    await stage.pause(job_id)
    await stage.ask(job_id, "resume")

    await stage.work()

    job = await stage.job(job_id)
    assert (job["status"], job["attempt"], job["started_at"]) == ("running", 2, started_at)
    tickets = [json.loads(r.environment[TICKET_VARIABLE]) for r in stage.ray.requests]
    assert [ticket.pop("attempt") for ticket in tickets] == [1, 2]
    assert tickets[0] == tickets[1]
    assert stage.ray.requests[1].submission_id == f"{job_id}-a2"
    assert stage.mlflow.runs[stage.run_id(job_id)].status is RunStatus.RUNNING
    assert (await stage.statuses(job_id))[-2:] == ["queued", "running"]


async def test_a_resumed_job_waits_for_room(stage: Stage) -> None:
    train = await stage.upload()
    jobs = [await stage.submit(train=train) for _ in range(3)]
    await stage.work()
    await stage.pause(jobs[0])
    await stage.ask(jobs[0], "resume")

    await stage.work(2)
    assert (await stage.job(jobs[0]))["status"] == "queued"

    stage.succeed(jobs[1])
    await stage.work()
    assert (await stage.job(jobs[0]))["status"] == "running"


@pytest.mark.parametrize("part", ["ray", "mlflow"])
async def test_jobs_stay_in_the_queue_untouched_while_a_part_is_away(
    stage: Stage, part: str
) -> None:
    job_id = await stage.submit()
    getattr(stage, part).is_away = True

    with pytest.raises((RayUnavailableError, MlflowUnavailableError)):
        await stage.work()

    assert (await stage.job(job_id))["attempt"] == 0
    assert not stage.mlflow.runs
    cancelled = await stage.client.post(f"/v1/jobs/{job_id}/cancel")
    assert cancelled.json()["status"] == "cancelled"


async def test_a_job_cancelled_while_it_is_being_submitted_gets_no_driver(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await stage.submit()
    describe = stage.mlflow.describe

    async def cancel_meanwhile(*arguments: object) -> None:
        answer = await stage.client.post(f"/v1/jobs/{job_id}/cancel")
        assert answer.json()["status"] == "cancelling"
        await describe(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(stage.mlflow, "describe", cancel_meanwhile)

    await stage.work(2)

    assert not stage.ray.drivers
    assert await stage.statuses(job_id) == ["queued", "cancelling", "cancelled"]
    assert stage.mlflow.runs[stage.run_id(job_id)].status is RunStatus.KILLED


async def test_a_job_paused_while_it_is_being_submitted_gets_no_driver_until_it_is_resumed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await stage.submit()
    describe = stage.mlflow.describe

    async def pause_meanwhile(*arguments: object) -> None:
        assert (await stage.ask(job_id, "pause"))["status"] == "pausing"
        await describe(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(stage.mlflow, "describe", pause_meanwhile)
    await stage.work(2)
    monkeypatch.undo()
    assert not stage.ray.drivers
    assert await stage.statuses(job_id) == ["queued", "pausing", "paused"]

    await stage.ask(job_id, "resume")
    await stage.work()

    assert set(stage.ray.drivers) == {f"{job_id}-a2"}
    assert len(stage.mlflow.runs) == 1


async def test_a_driver_submitted_while_its_job_is_cancelled_is_stopped(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await stage.submit()
    submit = stage.ray.submit

    async def cancel_meanwhile(request: object) -> None:
        await submit(request)  # type: ignore[arg-type]
        await stage.client.post(f"/v1/jobs/{job_id}/cancel")

    monkeypatch.setattr(stage.ray, "submit", cancel_meanwhile)

    await stage.work(2)
    assert stage.ray.stops == [f"{job_id}-a1"]
    stage.ray.end(f"{job_id}-a1", DriverState.STOPPED)
    await stage.work()

    assert (await stage.job(job_id))["status"] == "cancelled"


async def test_a_driver_whose_job_another_replica_has_closed_is_stopped(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await stage.submit()
    submit = stage.ray.submit

    async def stall_while_the_other_replica_acts(request: object) -> None:
        await stage.client.post(f"/v1/jobs/{job_id}/cancel")
        monkeypatch.undo()
        await stage.parts.control_loop.work_once()
        assert (await stage.job(job_id))["status"] == "cancelled"
        await submit(request)  # type: ignore[arg-type]

    monkeypatch.setattr(stage.ray, "submit", stall_while_the_other_replica_acts)

    await stage.work()

    assert stage.ray.stops == [f"{job_id}-a1"]
    assert (await stage.job(job_id))["status"] == "cancelled"


@pytest.mark.parametrize("is_resumed", [False, True])
async def test_a_driver_whose_attempt_another_replica_has_given_up_to_a_pause_is_stopped(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, is_resumed: bool
) -> None:
    job_id = await stage.submit()
    submit = stage.ray.submit

    async def stall_while_the_other_replica_acts(request: object) -> None:
        await stage.ask(job_id, "pause")
        monkeypatch.undo()
        await stage.parts.control_loop.work_once()
        if is_resumed:
            await stage.ask(job_id, "resume")
        await submit(request)  # type: ignore[arg-type]

    monkeypatch.setattr(stage.ray, "submit", stall_while_the_other_replica_acts)

    await stage.work()

    assert stage.ray.stops == [f"{job_id}-a1"]
    assert (await stage.job(job_id))["status"] == ("queued" if is_resumed else "paused")


async def test_a_job_that_another_replica_has_paused_is_not_failed_by_a_late_refusal(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await stage.submit()
    submit = stage.ray.submit

    async def refuse_after_the_other_replica_acted(request: object) -> None:
        await stage.ask(job_id, "pause")
        monkeypatch.undo()
        await stage.parts.control_loop.work_once()
        stage.ray.refuses = True
        await submit(request)  # type: ignore[arg-type]

    monkeypatch.setattr(stage.ray, "submit", refuse_after_the_other_replica_acted)

    await stage.work()

    assert await stage.statuses(job_id) == ["queued", "pausing", "paused"]


async def test_a_claimed_attempt_has_no_page_on_the_dashboard_before_ray_has_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await stage.started()
    await stage.pause(job_id)
    await stage.ask(job_id, "resume")
    links: list[str | None] = [(await stage.job(job_id))["links"]["ray_dashboard"]]
    submit = stage.ray.submit

    async def look_meanwhile(request: object) -> None:
        links.append((await stage.job(job_id))["links"]["ray_dashboard"])
        await submit(request)  # type: ignore[arg-type]

    monkeypatch.setattr(stage.ray, "submit", look_meanwhile)

    await stage.work()

    assert links == [f"http://127.0.0.1:8265/#/jobs/{job_id}-a1", None]


async def test_a_job_whose_file_has_vanished_fails_with_what_to_do(stage: Stage) -> None:
    job_id = await stage.submit()
    for path in stage.settings.files_dir.iterdir():
        if path.is_file():
            path.unlink()

    await stage.work()

    job = await stage.job(job_id)
    assert job["status"] == "failed"
    assert job["failure"]["code"] == "data-invalid"
    assert "upload it again" in job["failure"]["message"]
    assert not stage.ray.drivers


@pytest.mark.parametrize("part", ["ray", "mlflow"])
async def test_a_job_that_will_always_be_refused_fails_instead_of_waiting(
    stage: Stage, part: str
) -> None:
    refused = await stage.submit()
    getattr(stage, part).refuses = True

    await stage.work()

    job = await stage.job(refused)
    assert job["status"] == "failed"
    assert job["failure"]["code"] == "internal"
    assert "refused" in job["failure"]["message"] or "400" in job["failure"]["message"]
    assert all(run.status.is_ended for run in stage.mlflow.runs.values())


async def test_a_job_that_ray_fails_to_start_waits_and_holds_up_no_other(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    unlucky, other = await stage.submit(), await stage.submit()
    stage.ray.fails_to_start = f"{unlucky}-a1"
    await stage.work(3)
    assert (await stage.job(unlucky))["status"] == "queued"
    assert (await stage.job(other))["status"] == "running"
    assert caplog.text.count("Ray answered 500") == 1
    stage.ray.fails_to_start = ""

    await stage.work()

    job = await stage.job(unlucky)
    assert (job["status"], job["attempt"]) == ("running", 1)


async def test_a_job_that_ray_fails_to_start_for_minutes_fails(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await stage.submit()
    stage.ray.fails_to_start = f"{job_id}-a1"
    await stage.work()
    later = time.monotonic() + 301
    monkeypatch.setattr("service.dispatcher.time.monotonic", lambda: later)

    await stage.work()

    job = await stage.job(job_id)
    assert (job["status"], job["failure"]["code"]) == ("failed", "internal")
    assert "300 s: Ray answered 500" in job["failure"]["message"]
    assert all(run.status.is_ended for run in stage.mlflow.runs.values())


async def test_a_job_that_ray_fails_to_start_can_be_cancelled(stage: Stage) -> None:
    job_id = await stage.submit()
    stage.ray.fails_to_start = f"{job_id}-a1"
    await stage.work()
    await stage.ask(job_id, "cancel")

    await stage.work()

    assert (await stage.job(job_id))["status"] == "cancelled"


async def test_a_deleted_run_is_replaced_at_the_next_attempt(stage: Stage) -> None:
    job_id = await stage.started()
    stage.mlflow.runs.clear()
    stage.ray.end(f"{job_id}-a1", DriverState.FAILED)

    await stage.work()

    ticket = json.loads(stage.ray.requests[1].environment[TICKET_VARIABLE])
    assert ticket["run_id"] == stage.run_id(job_id)
    assert ticket["attempt"] == 2


async def test_a_search_gets_its_own_driver_its_files_and_its_space_as_parameters(
    stage: Stage,
) -> None:
    objectives = [{"metric": "eval/loss", "mode": "min"}]
    spec = await stage.search_spec(objectives=objectives)
    job_id = await stage.started(**spec)

    (request,) = stage.ray.requests
    assert request.entrypoint.endswith(" -m jobs.search")
    assert request.metadata["kind"] == "search"
    ticket = JobTicket.model_validate_json(request.environment[TICKET_VARIABLE])
    assert isinstance(ticket.spec, SearchSpec)
    assert list(ticket.files) == [spec["data"]["train"]]
    parameters = stage.mlflow.parameters[stage.run_id(job_id)]
    assert parameters["space.adapter.curvature.loguniform"] == "[0.1, 10.0]"
    assert parameters["space.adapter.r.choice"] == "[4, 8]"
    assert parameters["budget.trials"] == "20"
    assert json.loads(parameters["objectives"]) == objectives


def test_a_nested_spec_becomes_flat_parameters() -> None:
    spec = {"a": {"b": {"c": 1}, "d": None}, "e": ["x", "y"], "f": True}

    assert flatten(spec) == {"a.b.c": "1", "a.d": "None", "e": '["x", "y"]', "f": "True"}

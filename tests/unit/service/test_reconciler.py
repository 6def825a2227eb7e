from dataclasses import replace
from itertools import product

import pytest

from jobs.tickets import RunTag
from service.boundaries import DriverReport, DriverState, RunRef, RunReport, RunStatus
from service.errors import MlflowUnavailableError
from service.reconciler import (
    Cancel,
    Fail,
    ModelRef,
    Observation,
    Pause,
    Retry,
    StopDriver,
    Succeed,
    Wait,
    decide,
)
from service.states import JobStatus
from tests.unit.service.fakes import Killed
from tests.unit.service.stage import Stage
from tests.unit.service.standing_lease import led_jobs
from workers.specs import RunMetric

RESULT = {RunTag.MODEL_NAME: "sums", RunTag.MODEL_VERSION: "3"}
FAILURE = {RunTag.FAILURE_CODE: "row-too-long", RunTag.FAILURE_MESSAGE: "line 7 is too long"}
SUMMARY = {RunTag.SUMMARY: "tuned wins"}
SUMMING_UP = ["evaluate", "compare", "analyze"]
LIVE = [DriverState.PENDING, DriverState.RUNNING]
GONE = [DriverState.SUCCEEDED, DriverState.FAILED, DriverState.STOPPED, DriverState.UNKNOWN]
OUTCOMES = {"none": {}, "result": RESULT, "failure": FAILURE, "both": RESULT | FAILURE}
STOPPING = [JobStatus.PAUSING, JobStatus.CANCELLING]
STATUSES = [JobStatus.RUNNING, *STOPPING]
ENDED_AGO_S = [0.0, 5.0, 61.0]


def observe(
    status: JobStatus = JobStatus.RUNNING,
    driver: DriverState = DriverState.RUNNING,
    tags: dict[RunTag, str] | None = None,
    attempt: int = 1,
    paused_attempt: int = 0,
    seconds_since_end: float = 0.0,
    kind: str = "finetune",
) -> Observation:
    run = RunReport(
        RunRef("run", "7"),
        RunStatus.FINISHED if seconds_since_end else RunStatus.RUNNING,
        {str(tag): value for tag, value in (tags or {}).items()},
        seconds_since_end=seconds_since_end,
    )
    return Observation(kind, status, attempt, paused_attempt, 3, DriverReport(driver), run)


@pytest.mark.parametrize(("status", "driver"), list(product(STOPPING, LIVE)))
@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("ended_ago_s", ENDED_AGO_S)
def test_a_pausing_or_cancelling_job_is_stopped_while_its_driver_lives(
    status: JobStatus, driver: DriverState, outcome: str, ended_ago_s: float
) -> None:
    seen = observe(status, driver, OUTCOMES[outcome], seconds_since_end=ended_ago_s)

    assert decide(seen) == StopDriver()


@pytest.mark.parametrize("driver", LIVE)
@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("ended_ago_s", ENDED_AGO_S)
def test_a_running_job_is_left_alone_unless_its_driver_hangs_after_the_end(
    driver: DriverState, outcome: str, ended_ago_s: float
) -> None:
    seen = observe(driver=driver, tags=OUTCOMES[outcome], seconds_since_end=ended_ago_s)

    hangs = outcome != "none" and ended_ago_s > 60
    assert decide(seen) == (StopDriver() if hangs else Wait())


@pytest.mark.parametrize(("status", "driver", "attempt"), list(product(STATUSES, GONE, [1, 2, 3])))
def test_what_the_driver_recorded_decides_however_it_ended(
    status: JobStatus, driver: DriverState, attempt: int
) -> None:
    assert decide(observe(status, driver, RESULT, attempt)) == Succeed(ModelRef("sums", "3"))
    failed = Fail("row-too-long", "line 7 is too long")
    assert decide(observe(status, driver, FAILURE, attempt)) == failed
    assert decide(observe(status, driver, RESULT | FAILURE, attempt)) == failed


@pytest.mark.parametrize("driver", GONE)
@pytest.mark.parametrize("attempt", [1, 3, 4])
def test_a_stopping_job_without_an_outcome_is_paused_or_cancelled_once_its_driver_is_gone(
    driver: DriverState, attempt: int
) -> None:
    assert decide(observe(JobStatus.PAUSING, driver, attempt=attempt)) == Pause()
    assert decide(observe(JobStatus.CANCELLING, driver, attempt=attempt)) == Cancel()


@pytest.mark.parametrize("driver", GONE)
@pytest.mark.parametrize("attempt", [1, 2])
def test_a_driver_that_is_gone_without_an_outcome_is_tried_again(
    driver: DriverState, attempt: int
) -> None:
    action = decide(observe(driver=driver, attempt=attempt))

    assert isinstance(action, Retry)
    assert f"attempt {attempt}" in action.reason


@pytest.mark.parametrize("driver", [DriverState.FAILED, DriverState.STOPPED, DriverState.SUCCEEDED])
@pytest.mark.parametrize("attempt", [3, 4])
def test_a_driver_that_is_lost_in_the_last_attempt_fails_the_job(
    driver: DriverState, attempt: int
) -> None:
    action = decide(observe(driver=driver, attempt=attempt))

    assert isinstance(action, Fail)
    assert action.code == "driver-lost"


@pytest.mark.parametrize("attempt", [1, 3, 4])
def test_an_attempt_that_ray_has_lost_is_not_held_against_the_job(attempt: int) -> None:
    action = decide(observe(driver=DriverState.UNKNOWN, attempt=attempt))

    assert isinstance(action, Retry)
    assert not action.is_counted


@pytest.mark.parametrize(
    ("attempt", "paused_attempt", "action"), [(6, 4, Retry), (7, 4, Fail), (7, 5, Retry)]
)
def test_attempts_are_counted_from_the_last_pause(
    attempt: int, paused_attempt: int, action: type
) -> None:
    seen = observe(driver=DriverState.FAILED, attempt=attempt, paused_attempt=paused_attempt)

    assert isinstance(decide(seen), action)


@pytest.mark.parametrize(("status", "driver"), list(product(STATUSES, DriverState)))
def test_a_run_that_someone_deleted_counts_as_no_outcome(
    status: JobStatus, driver: DriverState
) -> None:
    seen = observe(status, driver)

    assert decide(replace(seen, run=None)) == decide(seen)


@pytest.mark.parametrize("kind", SUMMING_UP)
@pytest.mark.parametrize("driver", GONE)
def test_a_job_that_registers_nothing_has_succeeded_once_it_has_summed_up(
    kind: str, driver: DriverState
) -> None:
    assert decide(observe(driver=driver, tags=SUMMARY, kind=kind)) == Succeed(summary="tuned wins")
    assert isinstance(decide(observe(driver=driver, tags=RESULT, kind=kind)), Retry)
    assert isinstance(decide(observe(driver=driver, tags=SUMMARY | FAILURE, kind=kind)), Fail)


@pytest.mark.parametrize("kind", ["finetune", "search"])
def test_a_summary_is_told_of_a_training_but_does_not_end_it(kind: str) -> None:
    gone = DriverState.SUCCEEDED

    assert isinstance(decide(observe(driver=gone, tags=SUMMARY, kind=kind)), Retry)
    both = decide(observe(driver=gone, tags=SUMMARY | RESULT, kind=kind))
    assert both == Succeed(ModelRef("sums", "3"), "tuned wins")


def test_half_a_result_is_none() -> None:
    half = {RunTag.MODEL_NAME: "sums"}

    assert isinstance(decide(observe(driver=DriverState.FAILED, tags=half)), Retry)


def test_the_reason_repeats_what_ray_says() -> None:
    seen = observe(driver=DriverState.FAILED)

    action = decide(replace(seen, driver=DriverReport(DriverState.FAILED, "exit code 137")))

    assert isinstance(action, Retry)
    assert "exit code 137" in action.reason


async def test_a_job_whose_driver_registered_a_model_succeeds(stage: Stage) -> None:
    job_id = await stage.started(registry={"alias": "champion"})
    stage.succeed(job_id)

    await stage.work()

    job = await stage.job(job_id)
    assert (job["status"], job["terminal"]) == ("succeeded", True)
    assert job["model_version"] == {
        "name": "sums",
        "version": "3",
        "alias": "champion",
        "uri": "models:/sums/3",
    }
    assert job["links"]["model_version"].endswith("/#/models/sums/versions/3")
    assert job["finished_at"] >= job["started_at"] >= job["created_at"]
    assert await stage.statuses(job_id) == ["queued", "running", "succeeded"]


@pytest.mark.parametrize("kind", SUMMING_UP)
async def test_a_job_that_sums_up_tells_it_in_its_record_and_at_its_end(
    stage: Stage, kind: str
) -> None:
    job_id = await stage.begin(await getattr(stage, f"{kind}_spec")())
    stage.sum_up(job_id, "tuned wins by 3.1 points")

    await stage.work()

    job = await stage.job(job_id)
    assert (job["status"], job["summary"]) == ("succeeded", "tuned wins by 3.1 points")
    assert job["model_version"] is None
    (request,) = stage.ray.requests
    assert request.entrypoint == f"python -m jobs.{kind}"
    (last,) = [event for event in await stage.events(job_id) if event["data"].get("terminal")]
    assert last["data"]["reason"] == "tuned wins by 3.1 points"


async def test_a_job_fails_with_the_drivers_code_sentence_and_the_end_of_its_log(
    stage: Stage,
) -> None:
    job_id = await stage.started()
    stage.ray.logs[f"{job_id}-a1"] = "\n".join(f"line {n}" for n in range(100))
    stage.fail(job_id, "row-too-long", "line 7 is too long")

    await stage.work()

    job = await stage.job(job_id)
    assert job["status"] == "failed"
    assert job["failure"]["code"] == "row-too-long"
    assert job["failure"]["message"] == "line 7 is too long"
    assert job["failure"]["log_tail"].splitlines() == [f"line {n}" for n in range(60, 100)]
    (last,) = [event for event in await stage.events(job_id) if event["data"].get("terminal")]
    assert last["data"]["reason"] == "line 7 is too long"


async def test_a_recorded_failure_is_not_tried_again(stage: Stage) -> None:
    job_id = await stage.started()
    stage.fail(job_id, "row-too-long", "line 7 is too long")

    await stage.work(3)

    assert len(stage.ray.requests) == 1


async def test_a_lost_driver_is_followed_by_the_next_attempt_under_the_same_run(
    stage: Stage,
) -> None:
    job_id = await stage.started()
    stage.ray.logs[f"{job_id}-a1"] = "the end"
    stage.ray.end(f"{job_id}-a1", DriverState.FAILED, "exit code 137")

    await stage.work()

    job = await stage.job(job_id)
    assert (job["status"], job["attempt"]) == ("running", 2)
    assert [request.submission_id for request in stage.ray.requests] == [
        f"{job_id}-a1",
        f"{job_id}-a2",
    ]
    assert len(stage.mlflow.runs) == 1
    assert stage.mlflow.logs == {(stage.run_id(job_id), 1): "the end"}
    messages = [event for event in await stage.events(job_id) if event["type"] == "message"]
    assert "exit code 137" in messages[0]["data"]["text"]
    assert "starting attempt 2" in messages[0]["data"]["text"]
    assert await stage.statuses(job_id) == ["queued", "running"]


async def test_a_driver_that_ray_has_forgotten_is_followed_by_the_next_attempt(
    stage: Stage,
) -> None:
    job_id = await stage.started()
    stage.ray.drivers.clear()

    await stage.work()

    assert (await stage.job(job_id))["attempt"] == 2


async def test_a_job_whose_drivers_are_all_lost_fails_as_driver_lost(stage: Stage) -> None:
    job_id = await stage.started()
    for attempt in (1, 2, 3):
        stage.ray.end(f"{job_id}-a{attempt}", DriverState.FAILED)
        await stage.work()

    job = await stage.job(job_id)
    assert (job["status"], job["attempt"]) == ("failed", 3)
    assert job["failure"]["code"] == "driver-lost"
    assert stage.mlflow.runs[stage.run_id(job_id)].status is RunStatus.FAILED
    assert await stage.statuses(job_id) == ["queued", "running", "failed"]


async def test_no_number_of_restarts_of_ray_uses_up_the_attempts(stage: Stage) -> None:
    job_id = await stage.started()
    for _ in range(5):
        stage.ray.drivers.clear()
        await stage.work()
    assert (await stage.job(job_id))["status"] == "running"
    for attempt in (6, 7):
        stage.ray.end(f"{job_id}-a{attempt}", DriverState.FAILED)
        await stage.work()
    assert (await stage.job(job_id))["status"] == "running"
    stage.ray.end(f"{job_id}-a8", DriverState.FAILED)
    await stage.work()

    assert (await stage.job(job_id))["failure"]["code"] == "driver-lost"
    assert await stage.statuses(job_id) == ["queued", "running", "failed"]


@pytest.mark.parametrize(("verb", "status"), [("pause", "paused"), ("cancel", "cancelled")])
async def test_a_job_can_be_stopped_after_a_restart_of_ray(
    stage: Stage, verb: str, status: str
) -> None:
    job_id = await stage.started()
    stage.ray.drivers.clear()
    await stage.work()
    await stage.ask(job_id, verb)
    stage.ray.end(f"{job_id}-a2", DriverState.STOPPED)

    await stage.work()

    assert (await stage.job(job_id))["status"] == status


@pytest.mark.parametrize("verb", ["pause", "cancel"])
async def test_a_driver_is_stopped_while_mlflow_is_away(stage: Stage, verb: str) -> None:
    job_id = await stage.started()
    await stage.ask(job_id, verb)
    stage.mlflow.is_away = True

    with pytest.raises(MlflowUnavailableError):
        await stage.work()

    assert stage.ray.stops == [f"{job_id}-a1"]


async def test_a_run_that_its_driver_left_open_is_closed(stage: Stage) -> None:
    job_id = await stage.started()
    stage.mlflow.tag(stage.run_id(job_id), MODEL_NAME="sums", MODEL_VERSION="3")
    stage.ray.end(f"{job_id}-a1", DriverState.FAILED, "killed at the end")

    await stage.work()

    assert (await stage.job(job_id))["status"] == "succeeded"
    assert stage.mlflow.runs[stage.run_id(job_id)].status is RunStatus.FINISHED


async def test_a_cancelled_driver_is_stopped_until_it_is_gone(stage: Stage) -> None:
    job_id = await stage.started()
    await stage.client.post(f"/v1/jobs/{job_id}/cancel")

    await stage.work(3)
    assert (await stage.job(job_id))["status"] == "cancelling"
    assert stage.ray.stops == [f"{job_id}-a1"] * 3

    stage.ray.end(f"{job_id}-a1", DriverState.STOPPED)
    await stage.work()

    assert (await stage.job(job_id))["status"] == "cancelled"
    assert stage.mlflow.runs[stage.run_id(job_id)].status is RunStatus.KILLED
    assert await stage.statuses(job_id) == ["queued", "running", "cancelling", "cancelled"]


async def test_a_driver_that_finished_before_it_was_stopped_wins_over_the_cancellation(
    stage: Stage,
) -> None:
    job_id = await stage.started()
    await stage.client.post(f"/v1/jobs/{job_id}/cancel")
    stage.succeed(job_id)

    await stage.work()

    assert await stage.statuses(job_id) == ["queued", "running", "cancelling", "succeeded"]


async def test_a_cancelled_job_is_not_tried_again_when_its_driver_is_lost(stage: Stage) -> None:
    job_id = await stage.started()
    await stage.client.post(f"/v1/jobs/{job_id}/cancel")
    stage.ray.drivers.clear()

    await stage.work(2)

    assert (await stage.job(job_id))["status"] == "cancelled"
    assert len(stage.ray.requests) == 1


async def test_a_paused_driver_is_stopped_until_it_is_gone_and_leaves_an_open_run(
    stage: Stage,
) -> None:
    job_id = await stage.started()
    stage.ray.logs[f"{job_id}-a1"] = "a last checkpoint"
    await stage.ask(job_id, "pause")

    await stage.work(3)
    assert (await stage.job(job_id))["status"] == "pausing"
    assert stage.ray.stops == [f"{job_id}-a1"] * 3

    stage.ray.end(f"{job_id}-a1", DriverState.STOPPED)
    await stage.work(3)

    job = await stage.job(job_id)
    assert (job["status"], job["terminal"], job["attempt"]) == ("paused", False, 1)
    assert job["finished_at"] is None
    assert stage.mlflow.runs[stage.run_id(job_id)].status is RunStatus.SCHEDULED
    assert stage.mlflow.logs == {(stage.run_id(job_id), 1): "a last checkpoint"}
    assert len(stage.ray.requests) == 1
    assert await stage.statuses(job_id) == ["queued", "running", "pausing", "paused"]


async def test_a_driver_that_finished_before_it_was_stopped_wins_over_the_pause(
    stage: Stage,
) -> None:
    job_id = await stage.started()
    await stage.ask(job_id, "pause")
    stage.succeed(job_id)

    await stage.work()

    assert await stage.statuses(job_id) == ["queued", "running", "pausing", "succeeded"]


async def test_a_driver_that_fails_while_it_is_paused_fails_the_job(stage: Stage) -> None:
    job_id = await stage.started()
    await stage.ask(job_id, "pause")
    stage.fail(job_id, "loss-not-finite", "lower the rate")

    await stage.work()

    assert (await stage.job(job_id))["failure"]["code"] == "loss-not-finite"


async def test_a_job_that_is_cancelled_while_it_is_pausing_ends(stage: Stage) -> None:
    job_id = await stage.started()
    await stage.ask(job_id, "pause")
    await stage.work()
    assert (await stage.ask(job_id, "cancel"))["status"] == "cancelling"
    stage.ray.end(f"{job_id}-a1", DriverState.STOPPED)

    await stage.work()

    assert (await stage.statuses(job_id))[2:] == ["pausing", "cancelling", "cancelled"]


async def test_a_paused_job_that_is_cancelled_closes_its_run(stage: Stage) -> None:
    job_id = await stage.started()
    await stage.pause(job_id)
    assert (await stage.ask(job_id, "cancel"))["status"] == "cancelling"

    await stage.work()

    assert (await stage.job(job_id))["status"] == "cancelled"
    assert stage.mlflow.runs[stage.run_id(job_id)].status is RunStatus.KILLED


async def test_no_number_of_pauses_uses_up_the_attempts(stage: Stage) -> None:
    job_id = await stage.started()
    for attempt in (1, 2, 3, 4):
        await stage.pause(job_id, attempt)
        await stage.ask(job_id, "resume")
        await stage.work()
    stage.ray.end(f"{job_id}-a5", DriverState.FAILED)

    await stage.work()

    job = await stage.job(job_id)
    assert (job["status"], job["attempt"]) == ("running", 6)


async def test_a_pause_noted_late_by_another_replica_leaves_the_next_attempt_alone(
    stage: Stage,
) -> None:
    job_id = await stage.started()
    await stage.pause(job_id)
    await stage.ask(job_id, "resume")
    await stage.work()
    await stage.ask(job_id, "pause")

    await led_jobs(stage.parts.database).note_pause(job_id, attempt=1, reason=None, progress=None)

    assert (await stage.job(job_id))["status"] == "pausing"


@pytest.mark.parametrize(("verb", "status"), [("pause", "paused"), ("cancel", "cancelled")])
async def test_a_stopped_job_tells_the_checkpoint_that_it_left(
    stage: Stage, verb: str, status: str
) -> None:
    job_id = await stage.started()
    await stage.ask(job_id, verb)
    metrics: dict[str, float] = {RunMetric.STEP: 120.0, RunMetric.CHECKPOINT_STEP: 120.0}
    stage.mlflow.measure(stage.run_id(job_id), metrics)
    stage.ray.end(f"{job_id}-a1", DriverState.STOPPED)

    await stage.work()

    last = (await stage.events(job_id))[-1]["data"]
    assert last["status"] == status
    assert last["reason"] == "stopped at the checkpoint of step 120"
    assert (await stage.job(job_id))["progress"]["checkpoint_step"] == 120


@pytest.mark.parametrize("level", ["info", "warning"])
async def test_what_the_workers_say_about_the_rows_is_kept_and_told_once(
    stage: Stage, level: str
) -> None:
    job_id = await stage.started()
    assert (await stage.job(job_id))["data_summary"] is None
    stage.mlflow.tag(stage.run_id(job_id), DATA_LEVEL=level, DATA_SUMMARY="100 rows")

    await stage.work(3)
    stage.ray.end(f"{job_id}-a1", DriverState.FAILED)
    await stage.restart()
    await stage.work(2)
    stage.succeed(job_id, attempt=2)
    await stage.work()

    job = await stage.job(job_id)
    assert (job["status"], job["data_summary"]) == ("succeeded", "100 rows")
    told, retried = await stage.messages(job_id)
    assert told == {"level": level, "text": "100 rows"}
    assert "starting attempt 2" in retried["text"]


@pytest.mark.parametrize("verb", ["pause", "cancel", "fail", "succeed"])
async def test_the_rows_are_told_before_the_end_of_a_job_that_ends_at_once(
    stage: Stage, verb: str
) -> None:
    job_id = await stage.started()
    stage.mlflow.tag(stage.run_id(job_id), DATA_SUMMARY="100 rows")
    if verb == "fail":
        stage.fail(job_id, "row-too-long", "line 7 is too long")
    elif verb == "succeed":
        stage.succeed(job_id)
    else:
        await stage.ask(job_id, verb)
        stage.ray.end(f"{job_id}-a1", DriverState.STOPPED)

    await stage.work()

    assert await stage.messages(job_id) == [{"level": "info", "text": "100 rows"}]
    last = (await stage.events(job_id))[-1]
    assert last["data"]["status"] == (await stage.job(job_id))["status"] != "running"


async def test_the_summary_is_not_kept_without_its_message(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await stage.started()
    stage.mlflow.tag(stage.run_id(job_id), DATA_SUMMARY="100 rows")

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("service.led_jobs.event", die)
        with pytest.raises(Killed):
            await stage.work()
    assert (await stage.job(job_id))["data_summary"] is None

    await stage.restart()
    await stage.work()

    assert (await stage.job(job_id))["data_summary"] == "100 rows"
    assert len(await stage.messages(job_id)) == 1


async def test_each_loss_of_a_worker_is_told_once_and_in_order(stage: Stage) -> None:
    job_id = await stage.started()
    run_id = stage.run_id(job_id)

    stage.mlflow.lose_worker(run_id, "0001.0001", "worker 1 failed: killed")
    await stage.work(2)
    stage.mlflow.lose_worker(run_id, "0001.0002", "worker 0 failed: no memory")
    stage.ray.end(f"{job_id}-a1", DriverState.FAILED)
    await stage.restart()
    await stage.work(2)
    stage.mlflow.lose_worker(run_id, "0002.0001", "worker 0 failed: killed")
    await stage.work(2)

    texts = [message["text"] for message in await stage.messages(job_id)]
    assert texts[:2] == ["worker 1 failed: killed", "worker 0 failed: no memory"]
    assert "starting attempt 2" in texts[2]
    assert texts[3:] == ["worker 0 failed: killed"]
    assert {message["level"] for message in await stage.messages(job_id)} == {"warning"}


async def test_progress_is_kept_and_told(stage: Stage) -> None:
    job_id = await stage.started()
    metrics: dict[str, float] = {
        RunMetric.STEP: 5.0,
        RunMetric.TOTAL_STEPS: 50.0,
        RunMetric.LOSS: 1.25,
        RunMetric.TOKENS_PER_S: 900.0,
        RunMetric.SECONDS_LEFT: float("nan"),
        RunMetric.CHECKPOINT_STEP: 4.0,
    }
    stage.mlflow.measure(stage.run_id(job_id), metrics)

    await stage.work(2)

    progress = {
        "step": 5,
        "total_steps": 50,
        "loss": 1.25,
        "tokens_per_s": 900.0,
        "seconds_left": None,
        "eval_loss": None,
        "checkpoint_step": 4,
        "num_tokens": None,
    }
    assert (await stage.job(job_id))["progress"] == progress
    told = [event["data"] for event in await stage.events(job_id) if event["type"] == "progress"]
    assert told == [progress]


async def test_what_is_known_of_a_search_is_kept_and_told(stage: Stage) -> None:
    job_id = await stage.started(**await stage.search_spec())
    assert (await stage.job(job_id))["search"] is None
    run_id = stage.run_id(job_id)
    stage.mlflow.tag(run_id, BEST_TRIALS='["trial-0001"]')
    metrics = {"progress/step": 2.0, "progress/total_steps": 20.0, "objective/eval/loss": 0.5}
    stage.mlflow.measure(run_id, metrics)

    await stage.work(2)

    job = await stage.job(job_id)
    search = {
        "num_trials": 20,
        "num_ended": 2,
        "best_trials": ["trial-0001"],
        "best": {"eval/loss": 0.5},
    }
    assert job["search"] == search
    assert job["progress"]["step"] == 2
    (told,) = [event["data"] for event in await stage.events(job_id) if event["type"] == "progress"]
    assert told["search"] == search


async def test_the_last_progress_comes_before_the_end(stage: Stage) -> None:
    job_id = await stage.started()
    stage.mlflow.measure(stage.run_id(job_id), {RunMetric.STEP: 50.0})
    stage.succeed(job_id)

    await stage.work()

    types = [event["type"] for event in await stage.events(job_id)]
    assert types == ["status", "status", "progress", "status"]


async def test_an_outcome_recorded_while_ray_is_being_asked_is_not_missed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await stage.started()
    ask = stage.ray.report

    async def answer_after_the_driver_ended(submission_id: str) -> DriverReport:
        stage.succeed(job_id)
        return await ask(submission_id)

    monkeypatch.setattr(stage.ray, "report", answer_after_the_driver_ended)

    await stage.work()

    assert (await stage.job(job_id))["status"] == "succeeded"


async def test_trouble_with_one_job_does_not_hold_up_the_others(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    broken, whole = await stage.started(), await stage.started()
    stage.succeed(whole)
    run_id = stage.run_id(broken)
    stage.mlflow.runs[run_id] = replace(stage.mlflow.runs[run_id], metrics=None)  # type: ignore[arg-type]

    await stage.work()

    assert (await stage.job(whole))["status"] == "succeeded"
    assert f"cannot reconcile {broken}" in caplog.text

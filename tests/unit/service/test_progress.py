import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobs.tickets import RunTag
from service.boundaries import RunRef, RunReport, RunStatus
from service.progress import is_due, progress_of, stopping_point
from service.tables import Job
from workers.specs import RunMetric

START = datetime(2026, 3, 1, tzinfo=UTC)


def training(metrics: Mapping[str, float]) -> dict[str, Any] | None:
    """The progress of a training whose run has these metrics."""
    run = RunReport(RunRef("run0", "7"), RunStatus.RUNNING, metrics=metrics)
    return progress_of("finetune", run)


def test_there_is_no_progress_before_the_first_step() -> None:
    assert training({}) is None
    assert training({RunMetric.TOTAL_STEPS: 50.0}) is None
    assert progress_of("finetune", None) is None
    assert progress_of("search", None) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_hold_is_left_out(value: float) -> None:
    progress = training({RunMetric.STEP: 1.0, RunMetric.LOSS: value})

    assert progress is not None
    assert progress["loss"] is None


def test_steps_are_whole_numbers() -> None:
    metrics = {RunMetric.STEP: 3.0, RunMetric.TOTAL_STEPS: 50.0, RunMetric.CHECKPOINT_STEP: 2.0}

    progress = training(metrics)

    assert progress is not None
    steps = [progress[field] for field in ("step", "total_steps", "checkpoint_step")]
    assert steps == [3, 50, 2]
    assert all(isinstance(step, int) for step in steps)


def test_a_search_counts_trials_and_tells_the_best() -> None:
    metrics = {
        RunMetric.STEP: 3.0,
        RunMetric.TOTAL_STEPS: 20.0,
        "objective/eval/loss": 0.5,
        "objective/train/loss": math.nan,
    }
    tags = {RunTag.BEST_TRIALS: json.dumps(["trial-0002", "trial-0000"])}

    progress = progress_of("search", RunReport(RunRef("r", "7"), RunStatus.RUNNING, tags, metrics))

    assert progress is not None
    assert (progress["step"], progress["total_steps"]) == (3, 20)
    assert progress["search"] == {
        "num_trials": 20,
        "num_ended": 3,
        "best_trials": ["trial-0002", "trial-0000"],
        "best": {"eval/loss": 0.5},
    }


def test_a_search_that_has_just_begun_has_no_best() -> None:
    metrics = {RunMetric.STEP: 0.0, RunMetric.TOTAL_STEPS: 20.0}

    progress = progress_of("search", RunReport(RunRef("r", "7"), RunStatus.RUNNING, {}, metrics))

    assert progress is not None
    assert progress["search"] == {"num_trials": 20, "num_ended": 0, "best_trials": [], "best": {}}


def test_a_job_stops_at_its_last_checkpoint_if_it_has_one() -> None:
    assert stopping_point({RunMetric.STEP: 3.0}) is None
    assert stopping_point({RunMetric.CHECKPOINT_STEP: 2.0}) == "stopped at the checkpoint of step 2"


def test_the_first_progress_is_always_told() -> None:
    assert is_due(Job(submitted_at=START), {"step": 1}, START)


def test_unchanged_progress_is_not_told_again() -> None:
    job = Job(submitted_at=START, progress={"step": 1}, progress_at=START)

    assert not is_due(job, {"step": 1}, START + timedelta(days=1))


def test_a_short_job_tells_every_second_and_a_long_one_now_and_then() -> None:
    def told_in(duration: timedelta) -> int:
        job, now, num_told = Job(submitted_at=START), START, 0
        while now < START + duration:
            now += timedelta(seconds=1)
            progress = {"step": (now - START).total_seconds()}
            if is_due(job, progress, now):
                job.progress, job.progress_at = progress, now
                num_told += 1
        return num_told

    assert told_in(timedelta(minutes=10)) == 600
    assert told_in(timedelta(hours=10)) < 6000


def test_a_job_that_was_paused_for_long_tells_every_second_again() -> None:
    resumed = START + timedelta(days=30)
    job = Job(started_at=START, submitted_at=resumed, progress={"step": 1})
    job.progress_at = resumed + timedelta(seconds=5)

    assert is_due(job, {"step": 2}, resumed + timedelta(seconds=6))

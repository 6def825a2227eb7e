"""How far a job is, from what its workers and its driver report to MLflow."""

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jobs.tickets import RunTag, objective_metric
from service.boundaries import RunReport
from service.tables import Job
from workers.specs import RunMetric

_RESOLUTION = 1 / 1000
"""Progress is noted at most once in this part of the time since the attempt was submitted, so that
the history of a job grows with the logarithm of its duration."""


_OBJECTIVE = objective_metric("")


def progress_of(kind: str, run: RunReport | None) -> dict[str, Any] | None:
    """The fields of `ProgressRead`, and of a search also those of `SearchRead` as `search`.

    Args:
        kind: What the job does; a search counts trials where a training counts steps.
        run: The job's run.

    Returns:
        None before the first step, or a search's begin, is reported.
    """
    progress = _training_progress(run.metrics) if run else None
    if run is None or progress is None or kind != "search":
        return progress
    return progress | {"search": _search(run, progress)}


def _training_progress(metrics: Mapping[str, float]) -> dict[str, Any] | None:
    step = _whole(metrics, RunMetric.STEP)
    if step is None:
        return None
    return {
        "step": step,
        "total_steps": _whole(metrics, RunMetric.TOTAL_STEPS),
        "loss": _finite(metrics, RunMetric.LOSS),
        "tokens_per_s": _finite(metrics, RunMetric.TOKENS_PER_S),
        "seconds_left": _finite(metrics, RunMetric.SECONDS_LEFT),
        "eval_loss": _finite(metrics, RunMetric.EVAL_LOSS),
        "checkpoint_step": _whole(metrics, RunMetric.CHECKPOINT_STEP),
        "num_tokens": _whole(metrics, RunMetric.NUM_TOKENS),
    }


def _search(run: RunReport, progress: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "num_trials": progress["total_steps"],
        "num_ended": progress["step"],
        "best_trials": json.loads(run.tags.get(RunTag.BEST_TRIALS, "[]")),
        "best": objectives(run.metrics),
    }


def objectives(metrics: Mapping[str, float], prefix: str = _OBJECTIVE) -> dict[str, float]:
    """Finite values of objectives by what they measure."""
    return {
        metric.removeprefix(prefix): value
        for metric, value in sorted(metrics.items())
        if metric.startswith(prefix) and math.isfinite(value)
    }


def stopping_point(metrics: Mapping[str, float]) -> str | None:
    """Where a job that was stopped can go on, for the user; None if it has stored nothing."""
    step = _whole(metrics, RunMetric.CHECKPOINT_STEP)
    return None if step is None else f"stopped at the checkpoint of step {step}"


def is_due(job: Job, progress: Mapping[str, Any], now: datetime) -> bool:
    """Whether progress is new, and worth an entry in the job's history."""
    if progress == job.progress:
        return False
    if job.progress_at is None or job.submitted_at is None:
        return True
    return now - job.progress_at >= (now - job.submitted_at) * _RESOLUTION


def _whole(metrics: Mapping[str, float], metric: RunMetric) -> int | None:
    value = _finite(metrics, metric)
    return None if value is None else int(value)


def _finite(metrics: Mapping[str, float], metric: RunMetric) -> float | None:
    """JSON knows neither NaN nor infinity."""
    value = metrics.get(metric)
    return value if value is not None and math.isfinite(value) else None

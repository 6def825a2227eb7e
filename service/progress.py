"""How far a training is, from the metrics that its workers report."""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from service.tables import Job
from workers.specs import RunMetric

_RESOLUTION = 1 / 1000
"""Progress is noted at most once in this part of the time since the attempt was submitted, so that
the history of a job grows with the logarithm of its duration."""


def progress_of(metrics: Mapping[str, float]) -> dict[str, Any] | None:
    """The fields of `ProgressRead`; None before the first step is reported.

    Args:
        metrics: Last value of each metric of the run.
    """
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

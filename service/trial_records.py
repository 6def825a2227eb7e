"""A trial of a search, read from its MLflow run."""

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jobs.search_space import Value
from jobs.tickets import RunTag, TrialState, objective_error, objective_metric
from service.boundaries import RunRef, RunReport
from service.progress import objectives
from service.states import JobStatus
from service.tables import Job
from workers.specs import RunMetric

_ERROR = objective_error("")
_NO_METRICS = (objective_metric(""), _ERROR, "progress/")
"""Prefixes of metrics that have fields of their own."""


@dataclass(frozen=True)
class Trial:
    """One trial as it stands."""

    id: str
    run: RunRef
    state: TrialState
    reason: str | None
    values: Mapping[str, Value]
    objectives: Mapping[str, float]
    errors: Mapping[str, float]
    metrics: Mapping[str, float]
    step: int | None
    total_steps: int | None
    started_at: datetime | None
    finished_at: datetime | None
    seconds: float | None
    is_best: bool
    cancel_requested: bool

    @property
    def number(self) -> int:
        """Counts the trials of a search in the order in which they were chosen."""
        found = re.search(r"\d+$", self.id)
        return int(found[0]) if found else -1


def is_trial(run: RunReport) -> bool:
    """Whether a run below a search's is a trial; a refit is none."""
    return RunTag.TRIAL_ID in run.tags


def trial_of(job: Job, run: RunReport, best: Collection[str], now: datetime) -> Trial:
    """Read a trial.

    Args:
        job: The search.
        run: The trial's run.
        best: Ids of the best trials.
        now: The end of what is counted of a trial that has none.
    """
    tags, metrics = run.tags, run.metrics
    state, reason = TrialState(tags.get(RunTag.TRIAL_STATE, TrialState.RUNNING)), None
    finished_at = run.ended_at
    if state is TrialState.RUNNING and job.status.is_terminal:
        # A driver that was killed tells of no ends.
        is_cancelled = job.status is JobStatus.CANCELLED
        state = TrialState.CANCELLED if is_cancelled else TrialState.FAILED
        reason, finished_at = "its search ended first", finished_at or job.finished_at
    return Trial(
        id=tags[RunTag.TRIAL_ID],
        run=run.ref,
        state=state,
        reason=tags.get(RunTag.TRIAL_REASON) or reason,
        values=_document(tags.get(RunTag.TRIAL_VALUES)),
        objectives=objectives(metrics),
        errors=objectives(metrics, _ERROR),
        metrics={
            name: value
            for name, value in sorted(metrics.items())
            if math.isfinite(value) and not name.startswith(_NO_METRICS)
        },
        step=_whole(metrics.get(RunMetric.STEP)),
        total_steps=_whole(metrics.get(RunMetric.TOTAL_STEPS)),
        started_at=run.started_at,
        finished_at=finished_at,
        seconds=_seconds(run.started_at, finished_at or now),
        is_best=tags[RunTag.TRIAL_ID] in best,
        cancel_requested=tags.get(RunTag.CANCEL_REQUESTED) == "true",
    )


def _document(text: str | None) -> dict[str, Any]:
    document = json.loads(text) if text else {}
    return document if isinstance(document, dict) else {}


def _whole(value: float | None) -> int | None:
    return int(value) if value is not None and math.isfinite(value) else None


def _seconds(start: datetime | None, end: datetime) -> float | None:
    return None if start is None else max(0.0, (end - start).total_seconds())

"""The checkpoints of a job: when each was stored, how good it was, and whether it is still there.

That there was one is told by the job's MLflow run, where the workers note each once it is stored
whole; that it is still there, by the storage itself.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from service.boundaries import History, Runs
from service.callers import Caller
from service.checkpoint_storage import CheckpointStorage
from service.errors import CheckpointNotFoundError, RunNotFoundError
from service.lifecycle import Jobs
from service.series import shortened
from service.tables import Job
from workers.specs import RunMetric

_MOST_POINTS = 20_000
_ID = re.compile(r"ckpt-(?P<job>[0-9a-f]{16})-(?P<step>\d{1,18})")


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint that was stored once."""

    id: str
    job_id: str
    step: int
    created_at: datetime
    train_loss: float | None
    eval_loss: float | None
    is_kept: bool | None
    size_bytes: int | None
    model_version: str | None


class Checkpoints:
    """The checkpoints of every job.

    Args:
        jobs: Knows the jobs.
        runs: Tells which checkpoints there were.
        storage: Tells which are still there.
    """

    def __init__(self, jobs: Jobs, runs: Runs, storage: CheckpointStorage) -> None:
        self._jobs = jobs
        self._runs = runs
        self._storage = storage

    def acting_for(self, caller: Caller) -> Self:
        """The checkpoints as they are for a caller: those of others' jobs are not found."""
        acting = copy(self)
        acting._jobs = self._jobs.acting_for(caller)
        return acting

    async def page(
        self, job_id: str, limit: int, after: str | None = None
    ) -> tuple[Sequence[StoredCheckpoint], bool]:
        """Checkpoints, newest first, and whether there are more; none of a job without a training.

        Args:
            job_id: The job.
            limit: Most checkpoints that are returned.
            after: Id of the last one of the page before.

        Raises:
            CheckpointNotFoundError: If `after` is none of the job's.
            JobNotFoundError: If there is no such job.
            MlflowUnavailableError: If MLflow does not answer.
            RunNotFoundError: If someone has deleted the job's run.
        """
        job = await self._jobs.get(job_id)
        times_ms = await self._times_ms(job)
        steps = sorted(times_ms, reverse=True)
        if after is not None:
            steps = steps[steps.index(_step_of(after, job, times_ms)) + 1 :]
        chosen = steps[:limit]
        if not chosen or job.run_id is None:
            return [], False
        train = await self._runs.values_at(job.run_id, RunMetric.LOSS, chosen)
        evaluated = await self._runs.history(job.run_id, RunMetric.EVAL_LOSS, _MOST_POINTS)
        sizes = await self._storage.sizes(job.id)
        last_step = max(times_ms)
        found = [
            StoredCheckpoint(
                id=f"ckpt-{job.id.removeprefix('job-')}-{step}",
                job_id=job.id,
                step=step,
                created_at=datetime.fromtimestamp(times_ms[step] / 1000, UTC),
                train_loss=_finite(train.get(step)),
                eval_loss=_finite(_last_by(evaluated, step)),
                is_kept=None if sizes is None else step in sizes,
                size_bytes=None if sizes is None else sizes.get(step),
                # The adapter that is registered is that of the last checkpoint.
                model_version=_model_version(job) if step == last_step else None,
            )
            for step in chosen
        ]
        return found, len(steps) > limit

    async def _times_ms(self, job: Job) -> Mapping[int, int]:
        """When each checkpoint was stored, by its step."""
        if job.run_id is None:
            return {}
        run = await self._runs.read(job.run_id)
        if run is None:
            raise RunNotFoundError(f"someone has deleted the MLflow run {job.run_id} of {job.id}")
        if RunMetric.CHECKPOINT_STEP not in run.metrics:
            return {}
        history = await self._runs.history(job.run_id, RunMetric.CHECKPOINT_STEP, _MOST_POINTS)
        return dict(zip(history.steps, history.times_ms, strict=True))


def _step_of(checkpoint_id: str, job: Job, known: Mapping[int, int]) -> int:
    parts = _ID.fullmatch(checkpoint_id)
    if parts is None or f"job-{parts['job']}" != job.id or int(parts["step"]) not in known:
        raise CheckpointNotFoundError(
            f"{job.id} has no checkpoint {checkpoint_id!r}; GET /v1/jobs/{job.id}/checkpoints "
            "lists them"
        )
    return int(parts["step"])


def _last_by(history: History, step: int) -> float | None:
    """The last value at a step or before it."""
    series = shortened(history, max(5, len(history.steps)))
    place = bisect_right(series.steps, step)
    return series.values[place - 1] if place else None


def _model_version(job: Job) -> str | None:
    return (job.model_version or {}).get("uri")


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None

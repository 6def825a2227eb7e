"""The metrics of jobs, and of the trials and trainings below them, as series to draw."""

import asyncio
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Self

from jobs.tickets import RunTag
from service.boundaries import History, RunRef, RunReport, Runs
from service.callers import Caller
from service.errors import RunNotFoundError, TrialNotFoundError
from service.lifecycle import Jobs
from service.series import Series, shortened
from service.tables import Job
from service.turns import Turns

_MOST_POINTS = 150_000
"""Points that one request may have MLflow read, of all its series together: a server on two cores
takes a second and more for each ten thousand."""


@dataclass(frozen=True)
class MetricsPage:
    """Some series of a run."""

    names: Sequence[str]
    """All metrics that the run has."""
    series: Mapping[str, Series]
    has_more: bool


class JobMetrics:
    """The metrics of every job.

    Args:
        jobs: Knows the jobs.
        runs: Has the metrics.
    """

    def __init__(self, jobs: Jobs, runs: Runs) -> None:
        self._jobs = jobs
        self._runs = runs
        self._turns = Turns()

    def acting_for(self, caller: Caller) -> Self:
        """The metrics as they are for a caller: those of others' jobs are not found."""
        acting = copy(self)
        acting._jobs = self._jobs.acting_for(caller)
        return acting

    async def page(
        self,
        job_id: str,
        keys: Sequence[str],
        *,
        trial: str | None,
        max_points: int,
        limit: int,
        after: str | None,
    ) -> MetricsPage:
        """Series in the order of their names; none of a job that has not begun.

        Args:
            job_id: The job.
            keys: The metrics that are asked for; none for all.
            trial: A trial of a search, or a training of a comparison; None for the job itself.
            max_points: Most points of each series.
            limit: Most series.
            after: Name of the last series of the page before.

        Raises:
            JobNotFoundError: If there is no such job.
            MlflowUnavailableError: If MLflow does not answer.
            RunNotFoundError: If someone has deleted the run.
            TrialNotFoundError: If the job has no such trial.
        """
        job = await self._jobs.get(job_id)
        run = await self._run(job, trial)
        names = sorted(run.metrics) if run else []
        wanted = [key for key in sorted(set(keys) or names) if after is None or key > after]
        chosen = wanted[:limit]
        series = {}
        async with self._turns.taken():
            for key in chosen:
                history = History((), (), ())
                if run is not None and key in run.metrics:
                    most = _MOST_POINTS // len(chosen)
                    history = await self._runs.history(run.ref.run_id, key, most)
                series[key] = await asyncio.to_thread(shortened, history, max_points)
        return MetricsPage(names, series, has_more=len(wanted) > limit)

    async def _run(self, job: Job, trial: str | None) -> RunReport | None:
        if trial is not None:
            return await self._run_of_trial(job, trial)
        if job.run_id is None:
            return None
        if (run := await self._runs.read(job.run_id)) is None:
            raise RunNotFoundError(f"someone has deleted the MLflow run {job.run_id} of {job.id}")
        return run

    async def _run_of_trial(self, job: Job, trial: str) -> RunReport:
        """The run below a job's that carries a name; of two, the later."""
        found: dict[str, RunReport] = {}
        if job.run_id is not None and job.experiment_id is not None:
            for run in await self._runs.children(RunRef(job.run_id, job.experiment_id)):
                if name := run.tags.get(RunTag.TRIAL_ID) or run.tags.get(RunTag.TRAINING):
                    found[name] = run
        if trial not in found:
            known = ", ".join(sorted(found)[:20]) or "none"
            raise TrialNotFoundError(f"{job.id} has no trial or training {trial!r}; it has {known}")
        return found[trial]

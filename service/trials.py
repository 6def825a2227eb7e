"""The trials of a search: read from MLflow whenever they are asked for, and cancelled there.

The driver of a search writes their runs; what a user wishes of a trial is left there as a tag.
"""

import json
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Self

from jobs.tickets import RunTag, TrialState
from service.audit import AuditLog
from service.boundaries import RunRef, Runs
from service.callers import Caller
from service.errors import (
    JobNotASearchError,
    JobNotRunningError,
    RefusedError,
    TrialAlreadyEndedError,
    TrialNotFoundError,
)
from service.lifecycle import Jobs
from service.states import JobStatus
from service.tables import Job, utc_now
from service.trial_order import sorted_trials
from service.trial_records import Trial, is_trial, trial_of


class Trials:
    """The trials of every search.

    Args:
        jobs: Knows the searches.
        runs: Has the trials.
        audit: Notes what users do to them.
    """

    def __init__(self, jobs: Jobs, runs: Runs, audit: AuditLog) -> None:
        self._jobs = jobs
        self._runs = runs
        self._audit = audit
        self._caller: Caller | None = None

    def acting_for(self, caller: Caller) -> Self:
        """The trials as they are for a caller: those of others' searches are not found."""
        acting = copy(self)
        acting._jobs = self._jobs.acting_for(caller)
        acting._caller = caller
        return acting

    async def page(
        self,
        job_id: str,
        *,
        sort: str,
        state: TrialState | None,
        limit: int,
        after: str | None,
    ) -> tuple[Sequence[Trial], bool]:
        """Trials as they stand, and whether there are more.

        Args:
            job_id: The search.
            sort: What is compared, after a "-" the largest first.
            state: Trials of this state alone.
            limit: Most trials that are returned.
            after: Id of the last trial of the page before.

        Raises:
            JobNotASearchError: If the job has no trials.
            JobNotFoundError: If there is no such job.
            MlflowUnavailableError: If MLflow does not answer.
            RequestInvalidError: If nothing that `sort` names can be compared.
            TrialNotFoundError: If `after` is no trial.
        """
        job = await self._search(job_id)
        metrics = [objective["metric"] for objective in job.spec["objectives"]]
        found = sorted_trials(await self._read(job), sort, list(job.spec["space"]), metrics)
        if after is not None:
            # Of all, since the last one's state may have changed meanwhile.
            found = found[found.index(_named(job, found, after)) + 1 :]
        found = [trial for trial in found if state in (None, trial.state)]
        return found[:limit], len(found) > limit

    async def get(self, job_id: str, trial_id: str) -> Trial:
        """A trial as it stands.

        Raises:
            JobNotASearchError: If the job has no trials.
            JobNotFoundError: If there is no such job.
            MlflowUnavailableError: If MLflow does not answer.
            TrialNotFoundError: If there is no such trial.
        """
        job = await self._search(job_id)
        return _named(job, await self._read(job), trial_id)

    async def cancel(self, job_id: str, trial_id: str) -> Trial:
        """Ask the search's driver to end a trial; again is no error while it runs.

        Raises:
            JobNotASearchError: If the job has no trials.
            JobNotFoundError: If there is no such job.
            JobNotRunningError: If the search has no driver that could do it.
            MlflowUnavailableError: If MLflow does not answer.
            TrialAlreadyEndedError: If the trial has ended.
            TrialNotFoundError: If there is no such trial.
        """
        job = await self._search(job_id)
        if job.status is not JobStatus.RUNNING:
            raise JobNotRunningError(
                f"{job_id} is {job.status}; only trials of a search that runs can be cancelled"
            )
        trial = _named(job, await self._read(job), trial_id)
        if trial.state is not TrialState.RUNNING:
            raise TrialAlreadyEndedError(f"{trial_id} of {job_id} has already ended: {trial.state}")
        if not trial.cancel_requested:
            try:
                await self._runs.set_tag(trial.run.run_id, RunTag.CANCEL_REQUESTED, "true")
            except RefusedError as error:
                raise TrialNotFoundError(
                    f"the run of {trial_id} cannot be written to: {error}"
                ) from error
            target = f"{job_id}/{trial_id}"
            await self._audit.note(self._caller, "trial.cancel", target, job.project)
        return replace(trial, cancel_requested=True)

    async def _search(self, job_id: str) -> Job:
        job = await self._jobs.get(job_id)
        if job.kind != "search":
            raise JobNotASearchError(
                f"{job_id} is of the kind {job.kind}; only a search has trials"
            )
        return job

    async def _read(self, job: Job) -> list[Trial]:
        """Every trial, the oldest first; of two runs of one trial, the later."""
        if job.run_id is None or job.experiment_id is None:
            return []
        parent = await self._runs.read(job.run_id)
        best = json.loads(parent.tags.get(RunTag.BEST_TRIALS, "[]")) if parent else []
        runs = await self._runs.children(RunRef(job.run_id, job.experiment_id))
        now = utc_now()
        found = (trial_of(job, run, best, now) for run in runs if is_trial(run))
        return list({trial.id: trial for trial in found}.values())


def _named(job: Job, trials: Sequence[Trial], trial_id: str) -> Trial:
    for trial in trials:
        if trial.id == trial_id:
            return trial
    raise TrialNotFoundError(
        f"{job.id} has no trial {trial_id!r}; GET /v1/jobs/{job.id}/trials lists them"
    )

"""What users do with jobs: submit, look up, list, pause, resume and cancel.

Each verb is one transaction that locks the job's row first. Those of the control loop are in
`service.led_jobs`.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from copy import copy
from typing import Self

from sqlalchemy import ColumnElement
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from jobs.specs import JobSpec
from service.admission import require_admissible
from service.audit import record
from service.boundaries import Registry
from service.callers import DEFAULT_PROJECT, Caller, visible_project
from service.database import Database
from service.errors import (
    JobAlreadyEndedError,
    JobNotPausableError,
    JobNotPausedError,
)
from service.file_states import FileStatus
from service.job_filters import JobFilter
from service.job_rows import JobRows, JobWatcher, event, find_job, move, status_event
from service.model_names import (
    claim_models,
    require_models,
    require_new_to_mlflow,
    require_writable,
)
from service.paging import newest_first
from service.states import JobStatus
from service.submission import KeyedRequest, add_job, find_answered, new_job, require_files
from service.tables import Job
from workers.reach import Reach

_ALL = JobFilter()
_CLOSED = Reach()


class Jobs:
    """The jobs of one database; those that `acting_for` answers are one caller's alone.

    Args:
        database: Where they are.
        registry: Knows which names of models are taken.
        reach: What jobs may read.
        watcher: Told what becomes of jobs.
    """

    def __init__(
        self,
        database: Database,
        registry: Registry,
        reach: Reach = _CLOSED,
        watcher: JobWatcher | None = None,
    ) -> None:
        self._database = database
        self._registry = registry
        self._reach = reach
        self._rows = JobRows(database, watcher)
        self._caller: Caller | None = None

    def acting_for(self, caller: Caller) -> Self:
        """The jobs as they are for a caller: others are not found, and changes are audited."""
        acting = copy(self)
        acting._caller = caller
        return acting

    async def submit(self, spec: JobSpec, *, rerun_of: str | None = None) -> Job:
        """Queue a job.

        Args:
            spec: What it does.
            rerun_of: The job whose spec this one was made of.

        Raises:
            DataFileNotFoundError: If the spec names a file that was not uploaded.
            DatasetInvalidError: If the spec names a file that is not valid.
            ModelNameTakenError: If it would write to a model of another project.
            ModelNotFoundError: If it names a model of another project.
            ReferenceNotAllowedError: If it names something that jobs may not read.
            SecretInSpecError: If it holds a secret.
            SpecInvalidError: If it names a model in a form that cannot be read.
        """
        await require_admissible(spec, self._reach)
        await require_new_to_mlflow(self._database, self._registry, spec, self._caller)
        job = new_job(spec, self._project, rerun_of, request=None)
        async with self._database.writing() as session:
            await self._queue(session, job, spec)
        return job

    async def submit_once(
        self,
        spec: JobSpec,
        request: KeyedRequest,
        *,
        rerun_of: str | None = None,
    ) -> tuple[Job, bool]:
        """Queue a job, unless the same request has done so; whether it had.

        Args:
            spec: What the job does.
            request: Its key and what it asks for; keys of different projects do not meet.
            rerun_of: The job whose spec this one was made of.

        Raises:
            DataFileNotFoundError: If the spec names a file that was not uploaded.
            DatasetInvalidError: If the spec names a file that is not valid.
            IdempotencyKeyReusedError: If a request for something else had the same key.
            ModelNameTakenError: If it would write to a model of another project.
            ModelNotFoundError: If it names a model of another project.
            ReferenceNotAllowedError: If it names something that jobs may not read.
            SecretInSpecError: If it holds a secret.
            SpecInvalidError: If it names a model in a form that cannot be read.
        """
        await require_admissible(spec, self._reach)
        await require_new_to_mlflow(self._database, self._registry, spec, self._caller)
        try:
            async with self._database.writing() as session:
                if (earlier := await find_answered(session, self._project, request)) is not None:
                    return earlier, True
                job = new_job(spec, self._project, rerun_of, request)
                await self._queue(session, job, spec)
                return job, False
        except IntegrityError:
            # On PostgreSQL, another request of this key can commit after the look.
            async with self._database.reading() as session:
                earlier = await find_answered(session, self._project, request)
            if earlier is None:
                raise
            return earlier, True

    async def require_sound(self, spec: JobSpec) -> None:
        """Refuse a spec that could not be queued.

        Raises:
            DataFileNotFoundError: If the spec names a file that was not uploaded.
            DatasetInvalidError: If the spec names a file that is not valid.
            ModelNameTakenError: If it would write to a model of another project.
            ModelNotFoundError: If it names a model of another project.
            ReferenceNotAllowedError: If it names something that jobs may not read.
            SecretInSpecError: If it holds a secret.
            SpecInvalidError: If it names a model in a form that cannot be read.
        """
        await require_admissible(spec, self._reach)
        await require_new_to_mlflow(self._database, self._registry, spec, self._caller)
        async with self._database.reading() as session:
            await require_files(session, spec, self._caller)
            await require_models(session, spec, self._caller)
            await require_writable(session, spec, self._caller)

    async def get(self, job_id: str) -> Job:
        """A job as it stands.

        Raises:
            JobNotFoundError: If there is none.
        """
        async with self._database.reading() as session:
            return await find_job(session, job_id, self._caller)

    async def page(
        self, limit: int, after: str | None = None, shown: JobFilter = _ALL
    ) -> tuple[Sequence[Job], bool]:
        """Jobs, newest first, and whether there are more.

        Args:
            limit: Most jobs that are returned.
            after: Id of the last job of the page before.
            shown: Which jobs are meant.

        Raises:
            JobNotFoundError: If `after` is no job.
        """
        last = await self.get(after) if after is not None else None
        query = newest_first(Job, limit, last).where(*shown.conditions(), *self._visible())
        async with self._database.reading() as session:
            jobs = (await session.scalars(query)).all()
        return jobs[:limit], len(jobs) > limit

    async def pause(self, job_id: str, if_match: str | None = None) -> Job:
        """Take a job off the cluster; one that may have a driver is `pausing` until that is gone.

        Raises:
            JobNotFoundError: If there is none.
            JobNotPausableError: If it has ended or is being cancelled.
            PreconditionFailedError: If its ETag is none of `if_match`.
        """
        async with self._locked(job_id, if_match) as (session, job):
            if job.status.is_terminal:
                raise JobNotPausableError(
                    f"{job_id} has already {_ended(job.status)}; there is nothing left to pause"
                )
            if job.status is JobStatus.CANCELLING:
                raise JobNotPausableError(f"{job_id} is being cancelled, which cannot be undone")
            if job.status not in {JobStatus.PAUSING, JobStatus.PAUSED}:
                has_no_driver = job.is_over(job.attempt)
                after = JobStatus.PAUSED if has_no_driver else JobStatus.PAUSING
                move(session, job, after, "paused by the user")
                record(session, self._caller, "job.pause", job.id, job.project)
            return job

    async def resume(self, job_id: str, if_match: str | None = None) -> Job:
        """Queue a paused job again; its next attempt goes on from its last checkpoint.

        Raises:
            JobNotFoundError: If there is none.
            JobNotPausedError: If it is not paused.
            PreconditionFailedError: If its ETag is none of `if_match`.
        """
        async with self._locked(job_id, if_match) as (session, job):
            if job.status is JobStatus.PAUSING:
                raise JobNotPausedError(f"{job_id} is still pausing; resume it once it is paused")
            if job.status is not JobStatus.PAUSED:
                raise JobNotPausedError(
                    f"{job_id} is {job.status}; only a job that is paused can be resumed"
                )
            move(session, job, JobStatus.QUEUED, "resumed by the user")
            record(session, self._caller, "job.resume", job.id, job.project)
            return job

    async def cancel(self, job_id: str, if_match: str | None = None) -> Job:
        """End a job; one that exists outside is `cancelling` until that is cleared up.

        Raises:
            JobNotFoundError: If there is none.
            JobAlreadyEndedError: If it has ended.
            PreconditionFailedError: If its ETag is none of `if_match`.
        """
        async with self._locked(job_id, if_match) as (session, job):
            if job.status.is_terminal:
                raise JobAlreadyEndedError(f"{job_id} has already {_ended(job.status)}")
            if job.status is not JobStatus.CANCELLING:
                after = JobStatus.CANCELLING if job.attempt > 0 else JobStatus.CANCELLED
                move(session, job, after, "cancelled by the user")
                record(session, self._caller, "job.cancel", job.id, job.project)
            return job

    def _locked(
        self, job_id: str, if_match: str | None
    ) -> AbstractAsyncContextManager[tuple[AsyncSession, Job]]:
        return self._rows.locked(job_id, caller=self._caller, if_match=if_match)

    async def _queue(self, session: AsyncSession, job: Job, spec: JobSpec) -> None:
        files = await require_files(session, spec, self._caller, lock=True)
        await require_models(session, spec, self._caller)
        await claim_models(session, spec, job.project, self._caller)
        await add_job(session, job, spec)
        session.add(status_event(job, previous=None, reason=None))
        if unready := [file.id for file in files if file.status is FileStatus.VALIDATING]:
            text = f"waits until the rows of {', '.join(sorted(unready))} are validated"
            session.add(event(job, "message", {"level": "info", "text": text}))
        record(session, self._caller, "job.submit", job.id, job.project)

    @property
    def _project(self) -> str:
        """Whose the jobs are that are submitted here."""
        return self._caller.project if self._caller else DEFAULT_PROJECT

    def _visible(self) -> Iterator[ColumnElement[bool]]:
        if (project := visible_project(self._caller)) is not None:
            yield Job.project == project


def _ended(status: JobStatus) -> str:
    return "been cancelled" if status is JobStatus.CANCELLED else status.value

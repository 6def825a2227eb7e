"""The verbs of a job's life. Each is one transaction that locks the job's row first.

Users submit, pause, resume and cancel; the control loop does the rest. Every change of status goes
through `_move`, which holds it to the table in `service.states` and writes the event that clients
see. Since the row is locked before an event is written, a job's events commit in the order of their
ids.
"""

import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from copy import copy
from datetime import datetime
from typing import Any, Protocol, Self

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from jobs.specs import JobSpec
from service.admission import require_admissible
from service.audit import record
from service.boundaries import Registry, RunRef
from service.callers import DEFAULT_PROJECT, Caller, visible_project
from service.database import Database
from service.errors import (
    JobAlreadyEndedError,
    JobNotFoundError,
    JobNotPausableError,
    JobNotPausedError,
)
from service.file_states import FileStatus
from service.job_filters import JobFilter
from service.leases import Lease
from service.model_names import (
    claim_models,
    require_models,
    require_new_to_mlflow,
    require_writable,
)
from service.paging import newest_first
from service.preconditions import require_match
from service.queue_order import next_in_line, num_places_left
from service.states import JobStatus, require_transition
from service.submission import KeyedRequest, add_job, find_answered, new_job, require_files
from service.tables import Job, JobEvent, JobFile, UploadedFile, utc_now
from workers.reach import Reach

_ALL = JobFilter()
_CLOSED = Reach()
_STOPPING = [status for status in JobStatus if status.is_stopping]
_JOB_ID = re.compile(r"job-[0-9a-f]{16}")
_WAITING_FOR_FILES = (
    select(JobFile.job_id)
    .join(UploadedFile, UploadedFile.id == JobFile.file_id)
    .where(UploadedFile.status == FileStatus.VALIDATING)
)
_UNCLAIMED = and_(
    Job.status == JobStatus.QUEUED,
    Job.attempt == Job.paused_attempt,
    Job.id.not_in(_WAITING_FOR_FILES),
)
_CLAIMED = and_(Job.status == JobStatus.QUEUED, Job.attempt > Job.paused_attempt)
_UNSUBMITTED = and_(Job.status == JobStatus.RUNNING, Job.submitted_at.is_(None))
_ON_CLUSTER = or_(Job.status.in_([JobStatus.RUNNING, *_STOPPING]), _CLAIMED)


class JobWatcher(Protocol):
    """Hears of what has become of jobs, once it is committed; must not block."""

    def submitted(self, job: Job) -> None:
        """Ray has taken an attempt."""

    def started(self, job: Job) -> None:
        """It was the first one."""

    def ended(self, job: Job) -> None:
        """The job has ended for good."""


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
        self._watcher = watcher
        self._caller: Caller | None = None
        self._lease: Lease | None = None

    def acting_for(self, caller: Caller) -> Self:
        """The jobs as they are for a caller: others are not found, and changes are audited."""
        acting = copy(self)
        acting._caller = caller
        return acting

    def led_by(self, lease: Lease) -> Self:
        """The jobs as they are for the replica that leads.

        Every change raises `LeaseLostError` once another replica has taken over.
        """
        led = copy(self)
        led._lease = lease
        return led

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
                _move(session, job, after, "paused by the user")
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
            _move(session, job, JobStatus.QUEUED, "resumed by the user")
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
                _move(session, job, after, "cancelled by the user")
                record(session, self._caller, "job.cancel", job.id, job.project)
            return job

    async def submitted(self) -> Sequence[Job]:
        """Jobs to compare with Ray and MLflow: a driver of theirs may be there."""
        has_driver = and_(Job.status == JobStatus.RUNNING, Job.submitted_at.is_not(None))
        async with self._database.reading() as session:
            return await _oldest(session, or_(has_driver, Job.status.in_(_STOPPING)))

    async def awaiting_driver(self, max_live: int) -> Sequence[Job]:
        """Jobs to submit: those that were begun, then as many others as there is room for.

        Args:
            max_live: Most jobs that may be on the cluster together.
        """
        async with self._database.reading() as session:
            begun = await _oldest(session, or_(_CLAIMED, _UNSUBMITTED))
            return [*begun, *await next_in_line(session, _UNCLAIMED, _ON_CLUSTER, max_live)]

    async def claim(self, job_id: str, max_live: int) -> Job | None:
        """Note, before anything is done outside, that the job may now exist there.

        What `awaiting_driver` said may be old: other replicas can have led in the meantime.

        Returns:
            The job with the attempt to submit; None if it no longer waits for a driver, or there
            is no place for it any more.
        """
        async with self._locked(job_id) as (session, job):
            if job.status not in {JobStatus.QUEUED, JobStatus.RUNNING}:
                return None
            if job.attempt == job.paused_attempt:
                if await num_places_left(session, _ON_CLUSTER, max_live) <= 0:
                    return None
                job.attempt += 1
                job.submitted_at = None
            return job if job.submitted_at is None else None

    async def note_run(self, job_id: str, run: RunRef) -> Job:
        """Keep the job's MLflow run."""
        async with self._locked(job_id) as (_, job):
            job.run_id, job.experiment_id = run.run_id, run.experiment_id
            return job

    async def note_submission(self, job_id: str, attempt: int) -> Job:
        """Note that Ray has an attempt, unless that was given up in the meantime.

        It is true whoever leads, and who submitted it must learn whether it still matters.
        """
        async with self._locked(job_id, is_fact=True) as (session, job):
            if not job.is_over(attempt):
                job.submitted_at = utc_now()
                if job.status is JobStatus.QUEUED:
                    _move(session, job, JobStatus.RUNNING)
            return job

    async def note_data(self, job_id: str, summary: str, level: str) -> None:
        """Keep what the workers say about the rows, and tell those who follow; once a job.

        Args:
            job_id: The job.
            summary: One line.
            level: "info", or "warning" if the user should look at it.
        """
        async with self._locked(job_id) as (session, job):
            if job.data_summary is None and not job.status.is_terminal:
                job.data_summary = summary
                session.add(_event(job, "message", {"level": level, "text": summary}))

    async def note_restarts(self, job_id: str, reasons: Sequence[str]) -> None:
        """Tell those who follow why workers were lost; each reason once.

        Args:
            job_id: The job.
            reasons: All so far, oldest first.
        """
        async with self._locked(job_id) as (session, job):
            if not job.status.is_terminal:
                for reason in reasons[job.num_restarts :]:
                    session.add(_event(job, "message", {"level": "warning", "text": reason}))
                job.num_restarts = max(job.num_restarts, len(reasons))

    async def note_progress(self, job_id: str, progress: dict[str, Any]) -> None:
        """Keep how far the training is, and tell those who follow."""
        async with self._locked(job_id) as (session, job):
            if not job.status.is_terminal:
                _set_progress(session, job, progress)

    async def retry(
        self, job_id: str, attempt: int, reason: str, *, is_counted: bool = True
    ) -> None:
        """Give up an attempt and ask for the next.

        Args:
            job_id: The job.
            attempt: The attempt that ended; nothing happens if another is current by now.
            reason: Why, for the user.
            is_counted: Whether it is one of the attempts that the job has.
        """
        async with self._locked(job_id) as (session, job):
            if job.status is JobStatus.RUNNING and job.attempt == attempt:
                job.attempt += 1
                if not is_counted:
                    job.paused_attempt += 1
                job.submitted_at = None
                text = f"{reason}; starting attempt {job.attempt}"
                session.add(_event(job, "message", {"level": "warning", "text": text}))

    async def note_pause(
        self, job_id: str, attempt: int, reason: str | None, progress: dict[str, Any] | None
    ) -> None:
        """Give up an attempt until the user resumes the job.

        Args:
            job_id: The job.
            attempt: The attempt that ended; nothing happens if another is current by now.
            reason: Where it stopped, for the user.
            progress: How far the training was.
        """
        async with self._locked(job_id) as (session, job):
            if job.status is JobStatus.PAUSING and job.attempt == attempt:
                if progress is not None:
                    _set_progress(session, job, progress)
                job.paused_attempt = attempt
                _move(session, job, JobStatus.PAUSED, reason)

    async def end(
        self,
        job_id: str,
        attempt: int,
        status: JobStatus,
        *,
        reason: str | None = None,
        progress: dict[str, Any] | None = None,
        failure: dict[str, Any] | None = None,
        model_version: dict[str, Any] | None = None,
        summary: str | None = None,
    ) -> None:
        """Give a job its final status; one that has ended or is paused by now stays as it is.

        Args:
            job_id: The job.
            attempt: The attempt that ended; nothing happens if another is current by now.
            status: The final one.
            reason: Why, for the user.
            progress: How far the training was.
            failure: The fields of `FailureRead`.
            model_version: The fields of `ModelVersionRead`.
            summary: What was found, on one line.
        """
        async with self._locked(job_id) as (session, job):
            if job.attempt != attempt or job.terminal or job.status is JobStatus.PAUSED:
                return
            if progress is not None:
                _set_progress(session, job, progress)
            job.failure, job.model_version, job.summary = failure, model_version, summary
            _move(session, job, status, reason)

    @asynccontextmanager
    async def _locked(
        self, job_id: str, if_match: str | None = None, *, is_fact: bool = False
    ) -> AsyncIterator[tuple[AsyncSession, Job]]:
        async with self._database.writing() as session:
            if self._lease is not None and not is_fact:
                await self._lease.require(session)
            job = await find_job(session, job_id, self._caller, lock=True)
            require_match(job, if_match)
            before = (job.started_at, job.submitted_at, job.terminal)
            yield session, job
        self._tell(job, *before)

    def _tell(
        self,
        job: Job,
        started_at: datetime | None,
        submitted_at: datetime | None,
        was_terminal: bool,
    ) -> None:
        """Let the watcher know how a job differs from what it was."""
        if self._watcher is None:
            return
        if job.submitted_at not in {None, submitted_at}:
            self._watcher.submitted(job)
        if job.started_at not in {None, started_at}:
            self._watcher.started(job)
        if job.terminal and not was_terminal:
            self._watcher.ended(job)

    async def _queue(self, session: AsyncSession, job: Job, spec: JobSpec) -> None:
        files = await require_files(session, spec, self._caller, lock=True)
        await require_models(session, spec, self._caller)
        await claim_models(session, spec, job.project, self._caller)
        await add_job(session, job, spec)
        session.add(_status_event(job, previous=None, reason=None))
        if unready := [file.id for file in files if file.status is FileStatus.VALIDATING]:
            text = f"waits until the rows of {', '.join(sorted(unready))} are validated"
            session.add(_event(job, "message", {"level": "info", "text": text}))
        record(session, self._caller, "job.submit", job.id, job.project)

    @property
    def _project(self) -> str:
        """Whose the jobs are that are submitted here."""
        return self._caller.project if self._caller else DEFAULT_PROJECT

    def _visible(self) -> Iterator[ColumnElement[bool]]:
        if (project := visible_project(self._caller)) is not None:
            yield Job.project == project


async def find_job(
    session: AsyncSession, job_id: str, caller: Caller | None, lock: bool = False
) -> Job:
    """Load a job.

    Args:
        session: Where to look.
        job_id: The job, as the user wrote it.
        caller: Who asks; another project's job is not found. None for the service itself.
        lock: Whether to hold its row until the transaction ends.

    Raises:
        JobNotFoundError: If there is none.
    """
    job = None
    if _JOB_ID.fullmatch(job_id):
        job = await session.get(Job, job_id, with_for_update=lock)
    if job is None or visible_project(caller) not in {None, job.project}:
        raise JobNotFoundError(f"there is no job {job_id!r}; GET /v1/jobs lists them")
    return job


async def _oldest(session: AsyncSession, condition: ColumnElement[bool]) -> Sequence[Job]:
    query = select(Job).where(condition).order_by(Job.created_at, Job.id)
    return (await session.scalars(query)).all()


def _move(session: AsyncSession, job: Job, status: JobStatus, reason: str | None = None) -> None:
    require_transition(job.status, status)
    previous, job.status = job.status, status
    if status is JobStatus.RUNNING:
        job.started_at = job.started_at or utc_now()
    if status.is_terminal:
        job.finished_at = utc_now()
    session.add(_status_event(job, previous, reason))


def _set_progress(session: AsyncSession, job: Job, progress: dict[str, Any]) -> None:
    if progress != job.progress:
        job.progress, job.progress_at = progress, utc_now()
        session.add(_event(job, "progress", progress))


def _status_event(job: Job, previous: JobStatus | None, reason: str | None) -> JobEvent:
    data = {"status": job.status, "previous": previous, "terminal": job.status.is_terminal}
    return _event(job, "status", data | ({"reason": reason} if reason else {}))


def _event(job: Job, kind: str, data: Mapping[str, Any]) -> JobEvent:
    return JobEvent(job_id=job.id, created_at=utc_now(), type=kind, data=dict(data))


def _ended(status: JobStatus) -> str:
    return "been cancelled" if status is JobStatus.CANCELLED else status.value

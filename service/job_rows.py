"""The row of a job: found, locked while it changes, and the events that tell of each change.

Every change of status goes through `move`, which holds it to the table in `service.states` and
writes the event that clients see. Since the row is locked before an event is written, a job's
events commit in the order of their ids.
"""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from service.callers import Caller, visible_project
from service.database import Database
from service.errors import JobNotFoundError
from service.leases import Lease
from service.preconditions import require_match
from service.states import JobStatus, require_transition
from service.tables import Job, JobEvent, utc_now

_JOB_ID = re.compile(r"job-[0-9a-f]{16}")


class JobWatcher(Protocol):
    """Hears of what has become of jobs, once it is committed; must not block."""

    def submitted(self, job: Job) -> None:
        """Ray has taken an attempt."""

    def started(self, job: Job) -> None:
        """It was the first one."""

    def ended(self, job: Job) -> None:
        """The job has ended for good."""


class JobRows:
    """The jobs of one database, one at a time, for whoever changes them.

    Args:
        database: Where they are.
        watcher: Told what becomes of jobs.
    """

    def __init__(self, database: Database, watcher: JobWatcher | None) -> None:
        self._database = database
        self._watcher = watcher

    @asynccontextmanager
    async def locked(
        self,
        job_id: str,
        *,
        caller: Caller | None = None,
        if_match: str | None = None,
        lease: Lease | None = None,
    ) -> AsyncIterator[tuple[AsyncSession, Job]]:
        """One transaction that holds a job's row from its beginning.

        Args:
            job_id: The job.
            caller: Who asks; None for the service itself.
            if_match: ETag of the job as the client knows it.
            lease: Refuses the change once another replica has taken over.

        Raises:
            JobNotFoundError: If there is no such job.
            LeaseLostError: If another replica leads.
            PreconditionFailedError: If the job's ETag is none of `if_match`.
        """
        async with self._database.writing() as session:
            if lease is not None:
                await lease.require(session)
            job = await find_job(session, job_id, caller, lock=True)
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


def move(session: AsyncSession, job: Job, status: JobStatus, reason: str | None = None) -> None:
    """Give a job another status, and tell those who follow.

    Raises:
        IllegalTransitionError: If the table of states does not allow it.
    """
    require_transition(job.status, status)
    previous, job.status = job.status, status
    if status is JobStatus.RUNNING:
        job.started_at = job.started_at or utc_now()
    if status.is_terminal:
        job.finished_at = utc_now()
    session.add(status_event(job, previous, reason))


def set_progress(session: AsyncSession, job: Job, progress: dict[str, Any]) -> None:
    """Keep how far a job is, and tell those who follow."""
    if progress != job.progress:
        job.progress, job.progress_at = progress, utc_now()
        session.add(event(job, "progress", progress))


def status_event(job: Job, previous: JobStatus | None, reason: str | None) -> JobEvent:
    """What clients see of a change of status."""
    data = {"status": job.status, "previous": previous, "terminal": job.status.is_terminal}
    return event(job, "status", data | ({"reason": reason} if reason else {}))


def event(job: Job, kind: str, data: Mapping[str, Any]) -> JobEvent:
    """Something that happens to a job now."""
    return JobEvent(job_id=job.id, created_at=utc_now(), type=kind, data=dict(data))

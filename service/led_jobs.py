"""What the control loop does to jobs: which wait, what was seen of them, how they end.

Each verb is one transaction, and refused once another replica leads.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from service.boundaries import RunRef
from service.database import Database
from service.file_states import FileStatus
from service.job_rows import JobRows, JobWatcher, event, find_job, move, set_progress
from service.leases import Lease
from service.queue_order import next_in_line, num_places_left
from service.states import JobStatus
from service.tables import Job, JobFile, UploadedFile, utc_now

_STOPPING = [status for status in JobStatus if status.is_stopping]
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


class LedJobs:
    """The jobs as they are for the replica that leads.

    Args:
        database: Where they are.
        lease: Every change raises `LeaseLostError` once another replica has taken it over.
        watcher: Told what becomes of jobs.
    """

    def __init__(self, database: Database, lease: Lease, watcher: JobWatcher | None = None) -> None:
        self._database = database
        self._rows = JobRows(database, watcher)
        self._lease = lease

    async def get(self, job_id: str) -> Job:
        """A job as it stands."""
        async with self._database.reading() as session:
            return await find_job(session, job_id, caller=None)

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
        async with self._rows.locked(job_id, lease=self._lease) as (session, job):
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
        async with self._rows.locked(job_id, lease=self._lease) as (_, job):
            job.run_id, job.experiment_id = run.run_id, run.experiment_id
            return job

    async def note_submission(self, job_id: str, attempt: int) -> Job:
        """Note that Ray has an attempt, unless that was given up in the meantime.

        It is true whoever leads, and who submitted it must learn whether it still matters.
        """
        async with self._rows.locked(job_id) as (session, job):
            if not job.is_over(attempt):
                job.submitted_at = utc_now()
                if job.status is JobStatus.QUEUED:
                    move(session, job, JobStatus.RUNNING)
            return job

    async def note_data(self, job_id: str, summary: str, level: str) -> None:
        """Keep what the workers say about the rows, and tell those who follow; once a job.

        Args:
            job_id: The job.
            summary: One line.
            level: "info", or "warning" if the user should look at it.
        """
        async with self._rows.locked(job_id, lease=self._lease) as (session, job):
            if job.data_summary is None and not job.status.is_terminal:
                job.data_summary = summary
                session.add(event(job, "message", {"level": level, "text": summary}))

    async def note_restarts(self, job_id: str, reasons: Sequence[str]) -> None:
        """Tell those who follow why workers were lost; each reason once.

        Args:
            job_id: The job.
            reasons: All so far, oldest first.
        """
        async with self._rows.locked(job_id, lease=self._lease) as (session, job):
            if not job.status.is_terminal:
                for reason in reasons[job.num_restarts :]:
                    session.add(event(job, "message", {"level": "warning", "text": reason}))
                job.num_restarts = max(job.num_restarts, len(reasons))

    async def note_progress(self, job_id: str, progress: dict[str, Any]) -> None:
        """Keep how far the training is, and tell those who follow."""
        async with self._rows.locked(job_id, lease=self._lease) as (session, job):
            if not job.status.is_terminal:
                set_progress(session, job, progress)

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
        async with self._rows.locked(job_id, lease=self._lease) as (session, job):
            if job.status is JobStatus.RUNNING and job.attempt == attempt:
                job.attempt += 1
                if not is_counted:
                    job.paused_attempt += 1
                job.submitted_at = None
                text = f"{reason}; starting attempt {job.attempt}"
                session.add(event(job, "message", {"level": "warning", "text": text}))

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
        async with self._rows.locked(job_id, lease=self._lease) as (session, job):
            if job.status is JobStatus.PAUSING and job.attempt == attempt:
                if progress is not None:
                    set_progress(session, job, progress)
                job.paused_attempt = attempt
                move(session, job, JobStatus.PAUSED, reason)

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
        async with self._rows.locked(job_id, lease=self._lease) as (session, job):
            if job.attempt != attempt or job.terminal or job.status is JobStatus.PAUSED:
                return
            if progress is not None:
                set_progress(session, job, progress)
            job.failure, job.model_version, job.summary = failure, model_version, summary
            move(session, job, status, reason)


async def _oldest(session: AsyncSession, condition: ColumnElement[bool]) -> Sequence[Job]:
    query = select(Job).where(condition).order_by(Job.created_at, Job.id)
    return (await session.scalars(query)).all()

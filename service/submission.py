"""New jobs: the rows that a spec becomes, and requests that are sent twice."""

import hashlib
import json
import secrets
from dataclasses import dataclass
from typing import Self

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from jobs.specs import JobSpec, file_ids
from service.callers import Caller, visible_project
from service.errors import DataFileNotFoundError, FieldError, IdempotencyKeyReusedError
from service.states import JobStatus
from service.tables import Job, JobFact, JobTag, UploadedFile, utc_now


@dataclass(frozen=True)
class KeyedRequest:
    """A request under a name that its client gave it, so that it can be sent again."""

    key: str
    digest: str
    """Of all that was asked for."""

    @classmethod
    def of(cls, key: str, *content: object) -> Self:
        """A request by its key and its content, which JSON can hold."""
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return cls(key, hashlib.sha256(text.encode()).hexdigest())


def new_job(spec: JobSpec, project: str, rerun_of: str | None, request: KeyedRequest | None) -> Job:
    """A job that was never queued."""
    return Job(
        id=f"job-{secrets.token_hex(8)}",
        project=project,
        kind=spec.kind,
        name=spec.name,
        status=JobStatus.QUEUED,
        spec=spec.model_dump(mode="json"),
        priority=spec.priority,
        rerun_of=rerun_of,
        idempotency_key=request and request.key,
        request_digest=request and request.digest,
        attempt=0,
        paused_attempt=0,
        created_at=utc_now(),
    )


async def add_job(session: AsyncSession, job: Job, spec: JobSpec) -> None:
    """Add a job and what it is found by.

    Raises:
        IntegrityError: If another job of the project has its idempotency key.
    """
    session.add(job)
    await session.flush()
    session.add_all(JobTag(job_id=job.id, tag=tag) for tag in spec.tags)
    session.add_all(
        JobFact(job_id=job.id, key=key, value=value) for key, value in spec.metadata.items()
    )


async def find_answered(session: AsyncSession, project: str, request: KeyedRequest) -> Job | None:
    """The job that a request has made already.

    Raises:
        IdempotencyKeyReusedError: If it was made by a request for something else.
    """
    query = select(Job).where(Job.project == project, Job.idempotency_key == request.key)
    job = (await session.scalars(query)).one_or_none()
    if job is not None and job.request_digest != request.digest:
        raise IdempotencyKeyReusedError(
            f"the Idempotency-Key {request.key!r} was sent with another body, which made {job.id}; "
            "send a fresh key with every new job"
        )
    return job


async def require_files(session: AsyncSession, spec: JobSpec, caller: Caller | None) -> None:
    """Refuse a spec that names a file that was not uploaded, or is not the caller's.

    Raises:
        DataFileNotFoundError: If it does.
    """
    named = file_ids(spec)
    query = select(UploadedFile.id).where(UploadedFile.id.in_(named.values()))
    if (project := visible_project(caller)) is not None:
        query = query.where(UploadedFile.project == project)
    known = set((await session.scalars(query)).all())
    missing = [
        FieldError(field=field, value=file_id, message="no file with this id was uploaded")
        for field, file_id in named.items()
        if file_id not in known
    ]
    if missing:
        fields = " and ".join(error.field for error in missing)
        raise DataFileNotFoundError(
            f"{fields}: no such file; upload it with POST /v1/files and use the id it answers",
            missing,
        )

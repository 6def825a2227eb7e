"""New jobs: the rows that a spec becomes, and requests that are sent twice."""

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from jobs.specs import JobSpec, file_ids
from service.callers import Caller, visible_project
from service.errors import (
    DataFileNotFoundError,
    DatasetInvalidError,
    FieldError,
    IdempotencyKeyReusedError,
)
from service.states import JobStatus
from service.tables import Job, JobFact, JobFile, JobTag, UploadedFile, utc_now


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
    session.add_all(
        JobFile(job_id=job.id, file_id=file_id) for file_id in set(file_ids(spec).values())
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


async def require_files(
    session: AsyncSession, spec: JobSpec, caller: Caller | None, lock: bool = False
) -> list[UploadedFile]:
    """Refuse a spec that names a file that was not uploaded, is not the caller's, or is not valid.

    Args:
        session: Where the files are.
        spec: Names them.
        caller: Whose they have to be.
        lock: Whether to keep them from being deleted until the transaction ends.

    Returns:
        The files that are named.

    Raises:
        DataFileNotFoundError: If one is not there.
        DatasetInvalidError: If one is not valid.
    """
    named = file_ids(spec)
    query = select(UploadedFile).where(UploadedFile.id.in_(named.values()))
    if (project := visible_project(caller)) is not None:
        query = query.where(UploadedFile.project == project)
    if lock:
        query = query.with_for_update(read=True, key_share=True)
    files = {file.id: file for file in await session.scalars(query)}
    if missing := {field: name for field, name in named.items() if name not in files}:
        raise _not_found(missing)
    if invalid := {field: files[name] for field, name in named.items() if files[name].problem}:
        raise _not_valid(invalid)
    return list(files.values())


def _not_found(missing: Mapping[str, str]) -> DataFileNotFoundError:
    return DataFileNotFoundError(
        f"{' and '.join(missing)}: no such file; upload it with POST /v1/files and use the id it "
        "answers",
        [
            FieldError(field=field, value=file_id, message="no file with this id was uploaded")
            for field, file_id in missing.items()
        ],
    )


def _not_valid(invalid: Mapping[str, UploadedFile]) -> DatasetInvalidError:
    field, file = next(iter(invalid.items()))
    return DatasetInvalidError(
        f"{field}: {file.id} ({file.filename}) is not valid: {file.problem}; correct it, upload it "
        "again and use the new id",
        [
            FieldError(field=field, value=file.id, message=file.problem or "is not valid")
            for field, file in invalid.items()
        ],
    )

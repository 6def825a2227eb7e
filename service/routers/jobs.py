"""Jobs: submit, look up, list, pause, resume, cancel."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from jobs.specs import JobSpec
from service.answers import JobRead, Page
from service.dependencies import JobsPart, ViewsPart
from service.errors import (
    DataFileNotFoundError,
    JobAlreadyEndedError,
    JobNotFoundError,
    JobNotPausableError,
    JobNotPausedError,
    RequestInvalidError,
    RequestTooLargeError,
    SpecInvalidError,
    problems,
)
from service.states import JobStatus

router = APIRouter(prefix="/jobs", tags=["jobs"])

_LOCATION: dict[int | str, dict[str, Any]] = {
    201: {"headers": {"Location": {"schema": {"type": "string"}}}}
}


@router.post(
    "",
    status_code=201,
    responses=_LOCATION | problems(DataFileNotFoundError, RequestTooLargeError, SpecInvalidError),
)
async def create_job(
    spec: JobSpec, jobs: JobsPart, views: ViewsPart, response: Response
) -> JobRead:
    """Accept a job and queue it; follow `GET /v1/jobs/{job_id}/events` until it has ended."""
    job = await jobs.submit(spec)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return views.job(job)


@router.get("", responses=problems(JobNotFoundError, RequestInvalidError))
async def list_jobs(
    jobs: JobsPart,
    views: ViewsPart,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[str | None, Query(description="Last id of the page before.")] = None,
    status: Annotated[JobStatus | None, Query(description="Jobs of this status alone.")] = None,
) -> Page[JobRead]:
    """List jobs, newest first."""
    found, has_more = await jobs.page(limit, after, status)
    return Page(data=[views.job(job) for job in found], has_more=has_more)


@router.get("/{job_id}", responses=problems(JobNotFoundError))
async def read_job(job_id: str, jobs: JobsPart, views: ViewsPart) -> JobRead:
    """Look up a job."""
    return views.job(await jobs.get(job_id))


@router.post("/{job_id}/pause", responses=problems(JobNotFoundError, JobNotPausableError))
async def pause_job(job_id: str, jobs: JobsPart, views: ViewsPart) -> JobRead:
    """Take a job off the cluster; while its driver writes a last checkpoint, it is `pausing`.

    A job that is `pausing` or `paused` already stays so.
    """
    return views.job(await jobs.pause(job_id))


@router.post("/{job_id}/resume", responses=problems(JobNotFoundError, JobNotPausedError))
async def resume_job(job_id: str, jobs: JobsPart, views: ViewsPart) -> JobRead:
    """Queue a paused job again; it goes on from its last checkpoint."""
    return views.job(await jobs.resume(job_id))


@router.post("/{job_id}/cancel", responses=problems(JobNotFoundError, JobAlreadyEndedError))
async def cancel_job(job_id: str, jobs: JobsPart, views: ViewsPart) -> JobRead:
    """End a job; while its driver writes a last checkpoint and stops, it is `cancelling`."""
    return views.job(await jobs.cancel(job_id))

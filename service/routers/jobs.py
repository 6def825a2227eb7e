"""Jobs: submit, look up, list, pause, resume, cancel."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from jobs.specs import JobSpec
from service.answers import DryRunRead, JobRead, Page
from service.dependencies import DryRunsPart, JobsPart, ViewsPart
from service.errors import (
    DataFileNotFoundError,
    DryRunsBusyError,
    DryRunTimeoutError,
    JobAlreadyEndedError,
    JobNotFoundError,
    JobNotPausableError,
    JobNotPausedError,
    JobWouldFailError,
    RayUnavailableError,
    RequestInvalidError,
    RequestTooLargeError,
    SpecInvalidError,
    problems,
)
from service.states import JobStatus

router = APIRouter(prefix="/jobs", tags=["jobs"])

_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": DryRunRead, "description": "What the job would come to: with `dry_run`."},
    201: {"headers": {"Location": {"schema": {"type": "string"}}}},
}


@router.post(
    "",
    status_code=201,
    response_model=JobRead,
    responses=_ANSWERS
    | problems(
        DataFileNotFoundError,
        RequestTooLargeError,
        SpecInvalidError,
        JobWouldFailError,
        DryRunsBusyError,
        RayUnavailableError,
        DryRunTimeoutError,
    ),
)
async def create_job(
    spec: JobSpec,
    jobs: JobsPart,
    dry_runs: DryRunsPart,
    views: ViewsPart,
    request: Request,
    response: Response,
    dry_run: Annotated[
        bool, Query(description="Queue nothing; answer what the job would come to.")
    ] = False,
) -> JobRead | Response:
    """Accept a job and queue it; follow `GET /v1/jobs/{job_id}/events` until it has ended.

    With `dry_run`, nothing is queued: the cluster tokenizes the rows and answers steps, sizes, an
    estimate of the memory and whether it can ever place the workers, or why the job would fail.
    """
    if dry_run:
        found = await dry_runs.run(spec, request.is_disconnected)
        return JSONResponse(found.model_dump(mode="json"))
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

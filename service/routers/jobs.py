"""Jobs: submit, look up, list, pause, resume, cancel, do again."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response

from jobs.specs import JobSpec
from service.answers import JobRead, Page
from service.dependencies import JobsPart, ViewsPart
from service.errors import (
    JobAlreadyEndedError,
    JobNotFoundError,
    JobNotPausableError,
    JobNotPausedError,
    PreconditionFailedError,
    RequestInvalidError,
    problems,
)
from service.preconditions import etag
from service.reruns import RerunRequest, spec_of_rerun
from service.routers.intake import ETAG_HEADER, IntakePart, submission_answers
from service.routers.job_filter import METADATA_PARAMETER, JobFilterPart
from service.tables import Job
from service.views import Views

router = APIRouter(prefix="/jobs", tags=["jobs"])

_RECORD: dict[int | str, dict[str, Any]] = {200: {"headers": ETAG_HEADER}}

IfMatch = Annotated[
    str | None,
    Header(description="`ETag` of the record that the client knows; `*`, or none, for any."),
]


@router.post("", status_code=201, response_model=JobRead, responses=submission_answers())
async def create_job(spec: JobSpec, intake: IntakePart) -> JobRead | Response:
    """Accept a job and queue it; follow `GET /v1/jobs/{job_id}/events` until it has ended.

    With `dry_run`, nothing is queued: the cluster tokenizes the rows and answers steps, sizes, an
    estimate of the memory and whether it can ever place the workers, or why the job would fail.
    """
    return await intake.take(spec, spec.model_dump(mode="json", exclude_unset=True))


@router.get(
    "",
    responses=problems(JobNotFoundError, RequestInvalidError),
    openapi_extra={"parameters": [METADATA_PARAMETER]},
)
async def list_jobs(
    jobs: JobsPart,
    views: ViewsPart,
    shown: JobFilterPart,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[str | None, Query(description="Last id of the page before.")] = None,
) -> Page[JobRead]:
    """List jobs, newest first; each satisfies all filters."""
    found, has_more = await jobs.page(limit, after, shown)
    return Page(data=[views.job(job) for job in found], has_more=has_more)


@router.get("/{job_id}", responses=_RECORD | problems(JobNotFoundError))
async def read_job(job_id: str, jobs: JobsPart, views: ViewsPart, response: Response) -> JobRead:
    """Look up a job."""
    return _with_etag(await jobs.get(job_id), views, response)


@router.post(
    "/{job_id}/rerun",
    status_code=201,
    response_model=JobRead,
    responses=submission_answers(JobNotFoundError),
)
async def rerun_job(
    job_id: str, jobs: JobsPart, intake: IntakePart, body: RerunRequest | None = None
) -> JobRead | Response:
    """Queue a new job of the spec of another, which may be in any state, with other values.

    Everything else is as it is with `POST /v1/jobs`.
    """
    overrides = (body or RerunRequest()).overrides
    spec = spec_of_rerun(await jobs.get(job_id), overrides)
    return await intake.take(spec, overrides, rerun_of=job_id)


@router.post(
    "/{job_id}/pause",
    responses=_RECORD | problems(JobNotFoundError, JobNotPausableError, PreconditionFailedError),
)
async def pause_job(
    job_id: str, jobs: JobsPart, views: ViewsPart, response: Response, if_match: IfMatch = None
) -> JobRead:
    """Take a job off the cluster; while its driver writes a last checkpoint, it is `pausing`.

    A job that is `pausing` or `paused` already stays so.
    """
    return _with_etag(await jobs.pause(job_id, if_match), views, response)


@router.post(
    "/{job_id}/resume",
    responses=_RECORD | problems(JobNotFoundError, JobNotPausedError, PreconditionFailedError),
)
async def resume_job(
    job_id: str, jobs: JobsPart, views: ViewsPart, response: Response, if_match: IfMatch = None
) -> JobRead:
    """Queue a paused job again; it goes on from its last checkpoint."""
    return _with_etag(await jobs.resume(job_id, if_match), views, response)


@router.post(
    "/{job_id}/cancel",
    responses=_RECORD | problems(JobNotFoundError, JobAlreadyEndedError, PreconditionFailedError),
)
async def cancel_job(
    job_id: str, jobs: JobsPart, views: ViewsPart, response: Response, if_match: IfMatch = None
) -> JobRead:
    """End a job; while its driver writes a last checkpoint and stops, it is `cancelling`."""
    return _with_etag(await jobs.cancel(job_id, if_match), views, response)


def _with_etag(job: Job, views: Views, response: Response) -> JobRead:
    """The record of a job, with the header by which a later change can refer to it."""
    response.headers["ETag"] = etag(job)
    return views.job(job)

"""Fine-tunes for OpenAI's clients: begin, look up, list, pause, resume, cancel, follow."""

import re
from typing import Annotated

from fastapi import APIRouter, Query, Request

from jobs.specs import JobKind
from service.dependencies import EventsPart, JobsPart, ViewsPart
from service.errors import (
    FieldError,
    JobAlreadyEndedError,
    JobNotFoundError,
    JobNotPausableError,
    JobNotPausedError,
    RequestInvalidError,
    problems,
)
from service.job_filters import JobFilter
from service.lifecycle import Jobs
from service.openai.answers import FineTuningEventRead, FineTuningJobRead, OpenAiPage
from service.openai.requests import FineTuningJobCreate
from service.openai.specs import in_openai_words, spec_of
from service.openai.views import fine_tuning_event, fine_tuning_job
from service.routers.intake import SubmissionPart, queueing_problems
from service.routers.job_filter import METADATA_PARAMETER, metadata_of
from service.tables import Job
from service.views import Views

router = APIRouter(prefix="/fine_tuning/jobs", tags=["openai"])

_EVENT_ID = re.compile(r"ftevent-([0-9]{1,18})")

Limit = Annotated[int, Query(ge=1, le=100)]
After = Annotated[str | None, Query(description="Last id of the page before.")]


@router.post("", responses=queueing_problems())
async def create_fine_tuning_job(
    body: FineTuningJobCreate, submission: SubmissionPart, views: ViewsPart
) -> FineTuningJobRead:
    """Accept a fine-tune and queue it."""
    with in_openai_words():
        job = await submission.queue(
            spec_of(body),
            body.model_dump(mode="json", exclude_unset=True),
            "/openai/v1/fine_tuning/jobs",
        )
    return _answer(job, views)


@router.get(
    "",
    responses=problems(JobNotFoundError, RequestInvalidError),
    openapi_extra={"parameters": [METADATA_PARAMETER]},
)
async def list_fine_tuning_jobs(
    jobs: JobsPart, views: ViewsPart, request: Request, limit: Limit = 20, after: After = None
) -> OpenAiPage[FineTuningJobRead]:
    """List fine-tunes, newest first, also those that other routes have queued."""
    if "metadata" in request.query_params:
        message = "every job has metadata, perhaps empty; filter as in metadata[team]=maths"
        raise RequestInvalidError(
            f"metadata: {message}", [FieldError(field="metadata", message=message)]
        )
    shown = JobFilter(kind=JobKind.FINETUNE, metadata=metadata_of(request))
    found, has_more = await jobs.page(limit, after, shown)
    return OpenAiPage.of([_answer(job, views) for job in found], has_more)


@router.get("/{fine_tuning_job_id}", responses=problems(JobNotFoundError))
async def read_fine_tuning_job(
    fine_tuning_job_id: str, jobs: JobsPart, views: ViewsPart
) -> FineTuningJobRead:
    """Look up a fine-tune."""
    return _answer(await _finetune(jobs, fine_tuning_job_id), views)


@router.post(
    "/{fine_tuning_job_id}/cancel", responses=problems(JobNotFoundError, JobAlreadyEndedError)
)
async def cancel_fine_tuning_job(
    fine_tuning_job_id: str, jobs: JobsPart, views: ViewsPart
) -> FineTuningJobRead:
    """End a fine-tune; it is `running` until its driver has written a last checkpoint."""
    await _finetune(jobs, fine_tuning_job_id)
    return _answer(await jobs.cancel(fine_tuning_job_id), views)


@router.post(
    "/{fine_tuning_job_id}/pause", responses=problems(JobNotFoundError, JobNotPausableError)
)
async def pause_fine_tuning_job(
    fine_tuning_job_id: str, jobs: JobsPart, views: ViewsPart
) -> FineTuningJobRead:
    """Take a fine-tune off the cluster; it is `running` until its last checkpoint is written."""
    await _finetune(jobs, fine_tuning_job_id)
    return _answer(await jobs.pause(fine_tuning_job_id), views)


@router.post(
    "/{fine_tuning_job_id}/resume", responses=problems(JobNotFoundError, JobNotPausedError)
)
async def resume_fine_tuning_job(
    fine_tuning_job_id: str, jobs: JobsPart, views: ViewsPart
) -> FineTuningJobRead:
    """Queue a paused fine-tune again; it goes on from its last checkpoint."""
    await _finetune(jobs, fine_tuning_job_id)
    return _answer(await jobs.resume(fine_tuning_job_id), views)


@router.get(
    "/{fine_tuning_job_id}/events", responses=problems(JobNotFoundError, RequestInvalidError)
)
async def list_fine_tuning_events(
    fine_tuning_job_id: str,
    jobs: JobsPart,
    events: EventsPart,
    limit: Limit = 20,
    after: After = None,
) -> OpenAiPage[FineTuningEventRead]:
    """List what happened to a fine-tune, newest first."""
    await _finetune(jobs, fine_tuning_job_id)
    found, has_more = await events.newest(fine_tuning_job_id, limit, _event_number(after))
    return OpenAiPage.of([fine_tuning_event(event) for event in found], has_more)


async def _finetune(jobs: Jobs, job_id: str) -> Job:
    """A job that trains one adapter; OpenAI's clients know of no other kind."""
    job = await jobs.get(job_id)
    if job.kind != JobKind.FINETUNE:
        raise JobNotFoundError(f"{job_id} is no fine-tune; GET /v1/jobs/{job_id} answers it")
    return job


def _event_number(after: str | None) -> int | None:
    if after is None:
        return None
    if (match := _EVENT_ID.fullmatch(after)) is None:
        message = "give the id of an event, such as ftevent-12"
        raise RequestInvalidError(f"after: {message}", [FieldError(field="after", message=message)])
    return int(match[1])


def _answer(job: Job, views: Views) -> FineTuningJobRead:
    return fine_tuning_job(job, views.job(job))

"""Fine-tunes for OpenAI's clients: begin, look up, list, pause, resume, cancel, follow."""

import re
from typing import Annotated

from fastapi import APIRouter, Query, Request

from jobs.specs import JobKind
from service.dependencies import CheckpointsPart, EventsPart, JobsPart
from service.errors import (
    CheckpointNotFoundError,
    FieldError,
    JobAlreadyEndedError,
    JobNotFoundError,
    JobNotPausableError,
    JobNotPausedError,
    MlflowUnavailableError,
    RequestInvalidError,
    RunNotFoundError,
    problems,
)
from service.job_filters import JobFilter
from service.openai.answers import (
    FineTuningCheckpointRead,
    FineTuningEventRead,
    FineTuningJobRead,
    OpenAiPage,
)
from service.openai.fine_tunes import FineTunesPart
from service.openai.requests import FineTuningJobCreate
from service.openai.specs import in_openai_words, spec_of
from service.openai.views import fine_tuning_checkpoint, fine_tuning_event
from service.routers.intake import SubmissionPart, queueing_problems
from service.routers.job_filter import METADATA_PARAMETER, metadata_of

router = APIRouter(prefix="/fine_tuning/jobs", tags=["openai"])

_EVENT_ID = re.compile(r"ftevent-([0-9]{1,18})")

Limit = Annotated[int, Query(ge=1, le=100)]
After = Annotated[str | None, Query(description="Last id of the page before.")]


@router.post("", responses=queueing_problems())
async def create_fine_tuning_job(
    body: FineTuningJobCreate, submission: SubmissionPart, fine_tunes: FineTunesPart
) -> FineTuningJobRead:
    """Accept a fine-tune and queue it."""
    with in_openai_words():
        job = await submission.queue(
            spec_of(body),
            body.model_dump(mode="json", exclude_unset=True),
            "/openai/v1/fine_tuning/jobs",
        )
    return await fine_tunes.read(job)


@router.get(
    "",
    responses=problems(JobNotFoundError, RequestInvalidError),
    openapi_extra={"parameters": [METADATA_PARAMETER]},
)
async def list_fine_tuning_jobs(
    jobs: JobsPart,
    fine_tunes: FineTunesPart,
    request: Request,
    limit: Limit = 20,
    after: After = None,
) -> OpenAiPage[FineTuningJobRead]:
    """List fine-tunes, newest first, also those that other routes have queued."""
    if "metadata" in request.query_params:
        message = "every job has metadata, perhaps empty; filter as in metadata[team]=maths"
        raise RequestInvalidError(
            f"metadata: {message}", [FieldError(field="metadata", message=message)]
        )
    shown = JobFilter(kind=JobKind.FINETUNE, metadata=metadata_of(request))
    found, has_more = await jobs.page(limit, after, shown)
    return OpenAiPage.of(await fine_tunes.read_all(found), has_more)


@router.get("/{fine_tuning_job_id}", responses=problems(JobNotFoundError))
async def read_fine_tuning_job(
    fine_tuning_job_id: str, fine_tunes: FineTunesPart
) -> FineTuningJobRead:
    """Look up a fine-tune."""
    return await fine_tunes.read(await fine_tunes.get(fine_tuning_job_id))


@router.post(
    "/{fine_tuning_job_id}/cancel", responses=problems(JobNotFoundError, JobAlreadyEndedError)
)
async def cancel_fine_tuning_job(
    fine_tuning_job_id: str, jobs: JobsPart, fine_tunes: FineTunesPart
) -> FineTuningJobRead:
    """End a fine-tune; it is `running` until its driver has written a last checkpoint."""
    await fine_tunes.get(fine_tuning_job_id)
    return await fine_tunes.read(await jobs.cancel(fine_tuning_job_id))


@router.post(
    "/{fine_tuning_job_id}/pause", responses=problems(JobNotFoundError, JobNotPausableError)
)
async def pause_fine_tuning_job(
    fine_tuning_job_id: str, jobs: JobsPart, fine_tunes: FineTunesPart
) -> FineTuningJobRead:
    """Take a fine-tune off the cluster; it is `running` until its last checkpoint is written."""
    await fine_tunes.get(fine_tuning_job_id)
    return await fine_tunes.read(await jobs.pause(fine_tuning_job_id))


@router.post(
    "/{fine_tuning_job_id}/resume", responses=problems(JobNotFoundError, JobNotPausedError)
)
async def resume_fine_tuning_job(
    fine_tuning_job_id: str, jobs: JobsPart, fine_tunes: FineTunesPart
) -> FineTuningJobRead:
    """Queue a paused fine-tune again; it goes on from its last checkpoint."""
    await fine_tunes.get(fine_tuning_job_id)
    return await fine_tunes.read(await jobs.resume(fine_tuning_job_id))


@router.get(
    "/{fine_tuning_job_id}/events", responses=problems(JobNotFoundError, RequestInvalidError)
)
async def list_fine_tuning_events(
    fine_tuning_job_id: str,
    fine_tunes: FineTunesPart,
    events: EventsPart,
    limit: Limit = 20,
    after: After = None,
) -> OpenAiPage[FineTuningEventRead]:
    """List what happened to a fine-tune, newest first."""
    await fine_tunes.get(fine_tuning_job_id)
    found, has_more = await events.newest(fine_tuning_job_id, limit, _event_number(after))
    return OpenAiPage.of([fine_tuning_event(event) for event in found], has_more)


@router.get(
    "/{fine_tuning_job_id}/checkpoints",
    responses=problems(
        JobNotFoundError,
        CheckpointNotFoundError,
        RunNotFoundError,
        RequestInvalidError,
        MlflowUnavailableError,
    ),
)
async def list_fine_tuning_checkpoints(
    fine_tuning_job_id: str,
    fine_tunes: FineTunesPart,
    checkpoints: CheckpointsPart,
    limit: Limit = 10,
    after: After = None,
) -> OpenAiPage[FineTuningCheckpointRead]:
    """List the checkpoints of a fine-tune, newest first, also those that were removed since."""
    job = await fine_tunes.get(fine_tuning_job_id)
    found, has_more = await checkpoints.page(job.id, limit, after)
    return OpenAiPage.of([fine_tuning_checkpoint(job, each) for each in found], has_more)


def _event_number(after: str | None) -> int | None:
    if after is None:
        return None
    if (match := _EVENT_ID.fullmatch(after)) is None:
        message = "give the id of an event, such as ftevent-12"
        raise RequestInvalidError(f"after: {message}", [FieldError(field="after", message=message)])
    return int(match[1])

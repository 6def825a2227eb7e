"""What a job's driver has written."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import PlainTextResponse
from sse_starlette import EventSourceResponse

from service.dependencies import JobsPart, LogsPart, TelemetryPart
from service.errors import (
    JobNotFoundError,
    MlflowUnavailableError,
    RayUnavailableError,
    RequestInvalidError,
    problems,
)

router = APIRouter(prefix="/jobs/{job_id}/logs", tags=["jobs"])


@router.get(
    "",
    response_class=PlainTextResponse,
    responses=problems(
        JobNotFoundError, RequestInvalidError, RayUnavailableError, MlflowUnavailableError
    ),
)
async def read_log(
    job_id: str,
    jobs: JobsPart,
    logs: LogsPart,
    telemetry: TelemetryPart,
    follow: Annotated[bool, Query(description="Go on until the job has ended.")] = False,
    attempt: Annotated[
        int | None, Query(ge=1, le=1000, description="By default the current one.")
    ] = None,
) -> Response:
    """Read a job's log; with `follow`, all attempts from the first, until the job has ended."""
    if not follow:
        return PlainTextResponse(await logs.read(job_id, attempt))
    await jobs.get(job_id)

    async def encoded() -> AsyncIterator[bytes]:
        with telemetry.following("logs"):
            async for text in logs.follow(job_id):
                yield text.encode()

    # Its bytes go out as they are; unlike Starlette's stream, it ends when the server does.
    return EventSourceResponse(encoded(), media_type="text/plain; charset=utf-8", ping=0)

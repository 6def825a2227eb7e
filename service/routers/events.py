"""A job's history, as a page of JSON or as server-sent events."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from service.answers import EventRead, Page
from service.dependencies import EventsPart, JobsPart, SettingsPart, TelemetryPart, ViewsPart
from service.errors import JobNotFoundError, RequestInvalidError, problems

router = APIRouter(prefix="/jobs/{job_id}/events", tags=["jobs"])

_MAX_ID = 2**63 - 1
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
}


@router.get(
    "",
    response_model=Page[EventRead],
    responses=_STREAM | problems(JobNotFoundError, RequestInvalidError),
)
async def list_events(
    job_id: str,
    jobs: JobsPart,
    events: EventsPart,
    views: ViewsPart,
    settings: SettingsPart,
    telemetry: TelemetryPart,
    after: Annotated[int, Query(ge=0, le=_MAX_ID, description="Last event known.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
    last_event_id: Annotated[int | None, Header(ge=0, le=_MAX_ID)] = None,
) -> Page[EventRead] | Response:
    """List what happened to a job, oldest first.

    With `Accept: text/event-stream` the list goes on as a stream until the job has ended; the
    header `Last-Event-ID` takes up a stream that broke.
    """
    known = after if last_event_id is None else last_event_id
    if "text/event-stream" not in accept:
        found, has_more = await events.page(job_id, known, limit)
        return Page(data=[views.event(event) for event in found], has_more=has_more)
    await jobs.get(job_id)

    async def messages() -> AsyncIterator[ServerSentEvent]:
        with telemetry.following("events"):
            async for event in events.follow(job_id, known):
                data = views.event(event).model_dump_json()
                yield ServerSentEvent(data, event=event.type, id=str(event.id))

    return EventSourceResponse(messages(), ping=settings.sse_heartbeat_s)

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource, ServerSentEvent

from service.errors import DatabaseUnavailableError
from service.event_feed import EventFeed
from tests.unit.service.stage import Stage, make_settings
from workers.specs import RunMetric

ON_BOTH_DATABASES = True

STREAM = {"Accept": "text/event-stream"}


def messages_of(response: httpx.Response) -> Iterator[ServerSentEvent]:
    return (message for message in EventSource(response).iter_sse() if message.data)


async def ended_job(stage: Stage) -> str:
    """A job with five events: queued, running, two of progress, succeeded."""
    job_id = await stage.started()
    for step in (1.0, 2.0):
        stage.mlflow.measure(stage.run_id(job_id), {RunMetric.STEP: step})
        await stage.work()
    stage.succeed(job_id)
    await stage.work()
    return job_id


async def test_events_are_paged_in_the_order_in_which_they_happened(stage: Stage) -> None:
    job_id = await ended_job(stage)
    everything = await stage.events(job_id)

    paged: list[Any] = []
    has_more = True
    while has_more:
        after = paged[-1]["id"] if paged else 0
        page = await stage.get(f"/v1/jobs/{job_id}/events?limit=2&after={after}")
        paged, has_more = paged + page["data"], page["has_more"]

    assert paged == everything
    assert [event["type"] for event in paged] == [
        "status",
        "status",
        "progress",
        "progress",
        "status",
    ]
    assert [event["id"] for event in paged] == sorted(event["id"] for event in paged)


async def test_events_of_other_jobs_are_not_among_them(stage: Stage) -> None:
    job_id, _ = await ended_job(stage), await ended_job(stage)

    assert {event["job_id"] for event in await stage.events(job_id)} == {job_id}


@pytest.mark.parametrize(
    "query", ["after=-1", "after=x", f"after={2**63}", "limit=0", "limit=1001"]
)
async def test_a_parameter_that_is_not_valid_is_refused(stage: Stage, query: str) -> None:
    job_id = await stage.submit()

    response = await stage.client.get(f"/v1/jobs/{job_id}/events?{query}")

    assert response.status_code == 422
    assert response.json()["code"] == "request-invalid"


async def test_a_stream_replays_the_whole_history_and_closes_after_the_end(stage: Stage) -> None:
    job_id = await ended_job(stage)

    response = await stage.client.get(f"/v1/jobs/{job_id}/events", headers=STREAM)

    assert response.headers["Content-Type"].startswith("text/event-stream")
    messages = list(messages_of(response))
    events = await stage.events(job_id)
    assert [json.loads(message.data) for message in messages] == events
    assert [message.id for message in messages] == [str(event["id"]) for event in events]
    assert [message.event for message in messages] == [event["type"] for event in events]


@pytest.mark.parametrize("num_known", range(6))
async def test_a_stream_goes_on_after_the_last_event_that_the_client_knows(
    stage: Stage, num_known: int
) -> None:
    job_id = await ended_job(stage)
    events = await stage.events(job_id)
    known = events[num_known - 1]["id"] if num_known else 0

    by_header = await stage.client.get(
        f"/v1/jobs/{job_id}/events", headers=STREAM | {"Last-Event-ID": str(known)}
    )
    by_query = await stage.client.get(f"/v1/jobs/{job_id}/events?after={known}", headers=STREAM)

    for response in (by_header, by_query):
        received = [json.loads(message.data) for message in messages_of(response)]
        assert received == events[num_known:]


async def test_a_stream_that_is_open_receives_what_happens_meanwhile(stage: Stage) -> None:
    job_id = await stage.submit()
    stream = asyncio.create_task(stage.client.get(f"/v1/jobs/{job_id}/events", headers=STREAM))

    await stage.work()
    stage.mlflow.measure(stage.run_id(job_id), {RunMetric.STEP: 1.0, RunMetric.LOSS: 2.5})
    await stage.work()
    assert not stream.done()
    stage.succeed(job_id)
    await stage.work()

    received = [json.loads(message.data) for message in messages_of(await stream)]
    assert received == await stage.events(job_id)
    assert received[-1]["data"]["terminal"] is True


async def test_a_stream_stays_open_while_its_job_is_paused(stage: Stage) -> None:
    job_id = await stage.started()
    stream = asyncio.create_task(stage.client.get(f"/v1/jobs/{job_id}/events", headers=STREAM))
    await stage.pause(job_id)
    await asyncio.sleep(0.01)
    assert not stream.done()

    await stage.ask(job_id, "resume")
    await stage.work()
    stage.succeed(job_id, attempt=2)
    await stage.work()

    received = [json.loads(message.data) for message in messages_of(await stream)]
    assert received == await stage.events(job_id)


async def test_a_silent_stream_carries_heartbeats(tmp_path: Path) -> None:
    async with Stage(make_settings(tmp_path, sse_heartbeat_s=0.01)) as stage:
        job_id = await stage.submit()
        stream = asyncio.create_task(stage.client.get(f"/v1/jobs/{job_id}/events", headers=STREAM))
        await asyncio.sleep(0.1)
        await stage.client.post(f"/v1/jobs/{job_id}/cancel")

        assert b": ping" in (await stream).content


async def test_a_stream_outlives_an_outage_of_the_database(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await stage.submit()
    events, num_asked = stage.parts.events, 0
    find = EventFeed._find

    async def fail_twice(*arguments: Any) -> Any:
        nonlocal num_asked
        num_asked += 1
        if num_asked < 3:
            raise DatabaseUnavailableError("the database does not answer")
        return await find(*arguments)

    monkeypatch.setattr(EventFeed, "_find", fail_twice)
    stream = asyncio.create_task(stage.client.get(f"/v1/jobs/{job_id}/events", headers=STREAM))
    for _ in range(1000):
        await asyncio.sleep(0.001)
        if num_asked > 3:
            break
    await stage.ask(job_id, "cancel")

    received = [json.loads(message.data) for message in messages_of(await stream)]
    stored, _ = await events.page(job_id, 0, 10)
    assert [event["id"] for event in received] == [event.id for event in stored]


async def test_a_stream_is_replayed_by_another_process(stage: Stage) -> None:
    job_id = await ended_job(stage)
    events = await stage.events(job_id)

    await stage.restart()

    response = await stage.client.get(f"/v1/jobs/{job_id}/events", headers=STREAM)
    assert [json.loads(message.data) for message in messages_of(response)] == events


async def test_a_stream_of_an_unknown_job_is_a_problem(stage: Stage) -> None:
    response = await stage.client.get("/v1/jobs/job-0123456789abcdef/events", headers=STREAM)

    assert response.status_code == 404
    assert response.json()["code"] == "job-not-found"

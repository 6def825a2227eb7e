"""Many followers of event streams: who gets what and when, and what they cost while they wait."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from control_plane_burst import Burst
from control_plane_stack import Bench
from latency import summary

from service.database import Database
from service.events import Events
from service.job_rows import JobRows, set_progress
from service.lifecycle import Jobs
from service.mlflow_server import MlflowServer
from service.model_registry import MlflowRegistry

_NUM_JOBS = 5
_IDLE_S = 5.0
_PAUSE_S = 0.1
_TIMEOUT_S = 120


@dataclass
class Follower:
    """One open stream."""

    job_id: str
    received: list[tuple[int, float]] = field(default_factory=list)
    """Ids of events, and when each came."""
    is_closed: bool = False

    @property
    def ids(self) -> list[int]:
        """Ids of the events that came, in the order of their coming."""
        return [event_id for event_id, _ in self.received]

    async def follow(
        self, bench: Bench, session: aiohttp.ClientSession, begun: asyncio.Event
    ) -> None:
        """Read events until the service closes the stream."""
        headers = {**bench.headers, "Accept": "text/event-stream"}
        async with session.get(f"{bench.url}/{self.job_id}/events", headers=headers) as response:
            response.raise_for_status()
            async for line in response.content:
                if line.startswith(b"id: "):
                    self.received.append((int(line[4:]), time.time()))
                    begun.set()
        self.is_closed = True


async def measure_followers(
    bench: Bench, num_followers: int, num_events: int, num_posts: int
) -> dict[str, Any]:
    """Let followers wait, submit jobs meanwhile, then let events happen, and end every job.

    The events are written by this process, as another replica would.
    """
    database = Database(bench.database_url)
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    try:
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            ids = [
                (await asyncio.to_thread(bench.client.submit_job, bench.spec(f"followed-{i}"))).id
                for i in range(min(_NUM_JOBS, num_followers))
            ]
            followers = [Follower(ids[number % len(ids)]) for number in range(num_followers)]
            begun = [asyncio.Event() for _ in followers]
            tasks = [
                asyncio.create_task(each.follow(bench, session, event))
                for each, event in zip(followers, begun, strict=True)
            ]
            await _within(asyncio.gather(*(event.wait() for event in begun)), tasks)
            idle_cores = await _idle_cores(bench)
            posts = await Burst(bench, "followed-burst").run(num_posts, 8, 20.0)
            committed = await _let_events_happen(bench, database, ids, num_events)
            await _within(asyncio.gather(*tasks), tasks)
        stored = {job_id: await _stored_ids(database, job_id) for job_id in ids}
    finally:
        await database.close()
    wrong = [each for each in followers if each.ids != stored[each.job_id]]
    delays = [
        came - committed[event_id]
        for each in followers
        for event_id, came in each.received
        if event_id in committed
    ]
    found = {
        "followers": num_followers,
        "complete_and_in_order": num_followers - len(wrong),
        "closed": sum(each.is_closed for each in followers),
        "cores_while_idle": idle_cores,
        "receipt": summary(delays),
        "posts_meanwhile": posts,
    }
    print(f"followers: {found}", flush=True)
    return found


async def _within(waiting: asyncio.Future[Any], tasks: list[asyncio.Task[None]]) -> None:
    try:
        await asyncio.wait_for(waiting, _TIMEOUT_S)
    except TimeoutError:
        for task in tasks:
            task.cancel()
        raise


async def _idle_cores(bench: Bench) -> float:
    """Cores that the service keeps busy while nothing happens to the followed jobs."""
    process = bench.service_process()
    before, began = sum(process.cpu_times()[:2]), time.perf_counter()
    await asyncio.sleep(_IDLE_S)
    used = sum(process.cpu_times()[:2]) - before
    return round(used / (time.perf_counter() - began), 3)


async def _let_events_happen(
    bench: Bench, database: Database, ids: list[str], num_events: int
) -> dict[int, float]:
    """Write events to each job and end it; when each event was committed."""
    jobs = Jobs(database, MlflowRegistry(MlflowServer(bench.stack.mlflow_url)))
    events = Events(database, 1.0)
    committed: dict[int, float] = {}
    for number in range(num_events):
        for job_id in ids:
            if number == num_events - 1:
                await jobs.cancel(job_id)
            else:
                async with JobRows(database, None).locked(job_id) as (session, job):
                    set_progress(session, job, {"step": number})
            moment = time.time()
            found, _ = await events.page(job_id, max(committed, default=0), 10)
            committed |= {event.id: moment for event in found}
        await asyncio.sleep(_PAUSE_S)
    return committed


async def _stored_ids(database: Database, job_id: str) -> list[int]:
    found, _ = await Events(database, 1.0).page(job_id, 0, 1000)
    return [event.id for event in found]

"""New events of the jobs that are followed, looked for once for all who follow them here.

Two hundred followers that each asked the database every second would keep it, and this process,
busy while nothing happens. Those that know a job up to the same event wait for the same answer.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from service.database import Database
from service.errors import DatabaseUnavailableError
from service.tables import Job, JobEvent

BATCH = 500
"""Most events that are read at once."""

Position = tuple[str, int]
"""A job, and the last of its events that is known."""
News = tuple[Sequence[JobEvent], bool]
"""Events, oldest first, and whether the job has ended."""


@dataclass
class _Wait:
    news: asyncio.Future[News] = field(default_factory=asyncio.Future)
    num_followers: int = 0


class EventFeed:
    """Looks for events as long as somebody waits for them.

    Args:
        database: Where they are; other replicas write there, too.
        interval_s: Seconds between two looks.
    """

    def __init__(self, database: Database, interval_s: float) -> None:
        self._database = database
        self._interval_s = interval_s
        self._waits: dict[Position, _Wait] = {}
        self._looking: asyncio.Task[None] | None = None

    async def news(self, position: Position) -> News:
        """Wait until a job has events after a position, or has ended; outages are sat out."""
        wait = self._waits.setdefault(position, _Wait())
        wait.num_followers += 1
        if self._looking is None:
            self._looking = asyncio.create_task(self._keep_looking(), name="event-feed")
        try:
            return await asyncio.shield(wait.news)
        finally:
            wait.num_followers -= 1
            if wait.num_followers == 0 and self._waits.get(position) is wait:
                del self._waits[position]

    async def _keep_looking(self) -> None:
        try:
            while self._waits:
                await asyncio.sleep(self._interval_s)
                await self._look(list(self._waits))
        finally:
            self._looking = None

    async def _look(self, positions: Sequence[Position]) -> None:
        """Answer those for whom there is something."""
        try:
            answers = await self._find(positions)
        except DatabaseUnavailableError:
            return  # they wait for the next look
        except Exception as error:  # noqa: BLE001 (all who wait raise it)
            for position in positions:
                if wait := self._waits.pop(position, None):
                    wait.news.set_exception(error)
            return
        for position, news in answers.items():
            if wait := self._waits.pop(position, None):
                wait.news.set_result(news)

    async def _find(self, positions: Sequence[Position]) -> dict[Position, News]:
        newest = select(func.max(JobEvent.id)).where(JobEvent.job_id == Job.id).scalar_subquery()
        states = select(Job.id, Job.status, newest).where(Job.id.in_({job for job, _ in positions}))
        found: dict[Position, News] = {}
        async with self._database.reading() as session:
            jobs = {job: (status, last) for job, status, last in await session.execute(states)}
            for position in positions:
                status, last = jobs.get(position[0], (None, None))
                has_news = last is not None and last > position[1]
                is_over = status is None or status.is_terminal
                if has_news or is_over:
                    events = await read_events(session, position, BATCH) if has_news else ()
                    found[position] = events, is_over
        return found


async def read_events(session: AsyncSession, position: Position, limit: int) -> Sequence[JobEvent]:
    """Events of a job after one, oldest first."""
    job_id, known = position
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.id > known)
    return (await session.scalars(query.order_by(JobEvent.id).limit(limit))).all()

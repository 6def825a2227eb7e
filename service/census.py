"""How many jobs there are in each state, for those who watch the service."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, func, select

from service.database import Database
from service.states import JobStatus
from service.tables import Job

_FRESH_FOR_S = 5.0
"""Several scrapers, or an impatient one, cost the database no more than this allows."""


@dataclass(frozen=True)
class Census:
    """The jobs of the database at one moment."""

    numbers: Mapping[tuple[JobStatus, str], int]
    """Jobs by status and kind."""

    waiting_since: datetime | None
    """When the oldest job that waits for a place was accepted."""

    def num_of(self, *statuses: JobStatus) -> int:
        """Jobs of some statuses, whatever their kind."""
        return sum(number for (status, _), number in self.numbers.items() if status in statuses)


class JobCensus:
    """Counts jobs at most every few seconds."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = asyncio.Lock()
        self._census: Census | None = None
        self._taken_at = 0.0

    async def take(self) -> Census:
        """Count, or answer what was counted a moment ago.

        Raises:
            DatabaseUnavailableError: If the database does not answer.
        """
        async with self._lock:
            if self._census is None or time.monotonic() - self._taken_at > _FRESH_FOR_S:
                self._census = await self._count()
                self._taken_at = time.monotonic()
            return self._census

    async def _count(self) -> Census:
        by_status = select(Job.status, Job.kind, func.count()).group_by(Job.status, Job.kind)
        is_waiting = and_(Job.status == JobStatus.QUEUED, Job.attempt == Job.paused_attempt)
        async with self._database.reading() as session:
            rows = (await session.execute(by_status)).all()
            waiting_since = await session.scalar(select(func.min(Job.created_at)).where(is_waiting))
        numbers = {(status, kind): number for status, kind, number in rows}
        return Census(numbers, waiting_since)

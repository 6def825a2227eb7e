"""A job's history: pages of it, and a stream that replays it and goes on until the job ends."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from copy import copy
from typing import Self

from sqlalchemy import select

from service.callers import Caller
from service.database import Database
from service.errors import DatabaseUnavailableError
from service.event_feed import BATCH, EventFeed, News, read_events
from service.job_rows import find_job
from service.tables import JobEvent


class Events:
    """The events of every job; the database is the only place they are read from.

    Args:
        database: Where the jobs are.
        poll_interval_s: Seconds between two looks for new events of the jobs that are followed.
    """

    def __init__(self, database: Database, poll_interval_s: float) -> None:
        self._database = database
        self._poll_interval_s = poll_interval_s
        self._feed = EventFeed(database, poll_interval_s)
        self._caller: Caller | None = None

    def acting_for(self, caller: Caller) -> Self:
        """The events as they are for a caller: those of others' jobs are not found."""
        acting = copy(self)
        acting._caller = caller
        return acting

    async def page(self, job_id: str, after: int, limit: int) -> tuple[Sequence[JobEvent], bool]:
        """Events of a job, oldest first, and whether there are more.

        Args:
            job_id: The job.
            after: Id of the last event that is known; 0 for none.
            limit: Most events that are returned.

        Raises:
            JobNotFoundError: If there is no such job.
        """
        events, _ = await self._read(job_id, after, limit + 1)
        return events[:limit], len(events) > limit

    async def newest(
        self, job_id: str, limit: int, before: int | None = None
    ) -> tuple[Sequence[JobEvent], bool]:
        """Events of a job, newest first, and whether there are more.

        Args:
            job_id: The job.
            limit: Most events that are returned.
            before: Id of the last event that is known; None for none.

        Raises:
            JobNotFoundError: If there is no such job.
        """
        query = select(JobEvent).where(JobEvent.job_id == job_id).limit(limit + 1)
        if before is not None:
            query = query.where(JobEvent.id < before)
        async with self._database.reading() as session:
            await find_job(session, job_id, self._caller)
            events = (await session.scalars(query.order_by(JobEvent.id.desc()))).all()
        return events[:limit], len(events) > limit

    async def follow(self, job_id: str, after: int) -> AsyncIterator[JobEvent]:
        """Every event after one, as it comes, until the job has ended.

        A database that is away for a while is waited for.

        Raises:
            JobNotFoundError: If there is no such job.
        """
        events, is_over = await self._read_once_it_answers(job_id, after)
        while True:
            for event in events:
                yield event
                after = event.id
            if len(events) == BATCH:
                events, is_over = await self._read_once_it_answers(job_id, after)
            elif is_over:
                return
            else:
                events, is_over = await self._feed.news((job_id, after))

    async def _read_once_it_answers(self, job_id: str, after: int) -> News:
        while True:
            try:
                return await self._read(job_id, after, BATCH)
            except DatabaseUnavailableError:
                await asyncio.sleep(self._poll_interval_s)

    async def _read(self, job_id: str, after: int, limit: int) -> News:
        async with self._database.reading() as session:
            # The job first: if it has ended by then, its last event is there, too.
            job = await find_job(session, job_id, self._caller)
            events = await read_events(session, (job_id, after), limit)
            return events, job.status.is_terminal

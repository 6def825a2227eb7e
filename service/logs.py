"""A job's log: from Ray while it is there, from the MLflow run afterwards."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from copy import copy
from typing import Self

from service.boundaries import Drivers, Runs
from service.callers import Caller
from service.errors import DatabaseUnavailableError, UnavailableError
from service.lifecycle import Jobs
from service.tables import Job

_SILENCE_S = 30.0
"""A connection to Ray that is silent for this long may be dead and is opened again."""


class Logs:
    """The logs of every job.

    Args:
        jobs: Tells which attempt is current and when a job has ended.
        drivers: Has the logs of drivers that Ray remembers.
        runs: Keeps the logs of attempts that have ended.
        poll_interval_s: Seconds between two looks at a job that is followed.
    """

    def __init__(self, jobs: Jobs, drivers: Drivers, runs: Runs, poll_interval_s: float) -> None:
        self._jobs = jobs
        self._drivers = drivers
        self._runs = runs
        self._poll_interval_s = poll_interval_s

    def acting_for(self, caller: Caller) -> Self:
        """The logs as they are for a caller: those of others' jobs are not found."""
        acting = copy(self)
        acting._jobs = self._jobs.acting_for(caller)
        return acting

    async def read(self, job_id: str, attempt: int | None = None) -> str:
        """What a driver has written so far; empty before it has begun.

        Args:
            job_id: The job.
            attempt: The attempt; by default the current one.

        Raises:
            JobNotFoundError: If there is no such job.
            UnavailableError: If the log is on a system that does not answer.
        """
        job = await self._jobs.get(job_id)
        return await self._read(job, job.attempt if attempt is None else attempt)

    async def follow(self, job_id: str) -> AsyncIterator[str]:
        """What the drivers of a job write, attempt after attempt, until the job has ended.

        Raises:
            JobNotFoundError: If there is no such job.
        """
        attempt = 1
        while True:
            job = await self._found(job_id)
            if attempt < job.attempt or (attempt == job.attempt and job.submitted_at is not None):
                if attempt > 1:
                    yield f"--- attempt {attempt} ---\n"
                async for text in self._follow_attempt(job, attempt):
                    yield text
                attempt += 1
            elif job.status.is_terminal:
                return
            else:
                await asyncio.sleep(self._poll_interval_s)

    async def _follow_attempt(self, job: Job, attempt: int) -> AsyncIterator[str]:
        """One driver's log from beginning to end, over as many connections as it takes."""
        num_sent = 0
        while True:
            try:
                if job.is_over(attempt):
                    yield (await self._read(job, attempt))[num_sent:]
                    return
                async for text, position in self._tail(job):
                    if position > num_sent:
                        yield text[max(0, len(text) - (position - num_sent)) :]
                        num_sent = position
            except (UnavailableError, TimeoutError):
                await asyncio.sleep(self._poll_interval_s)
            else:
                return
            job = await self._found(job.id)

    async def _found(self, job_id: str) -> Job:
        """A job that is followed, once the database answers."""
        while True:
            try:
                return await self._jobs.get(job_id)
            except DatabaseUnavailableError:
                await asyncio.sleep(self._poll_interval_s)

    async def _tail(self, job: Job) -> AsyncIterator[tuple[str, int]]:
        """Pieces of a driver's log, with the number of characters up to the end of each."""
        position = 0
        async with aclosing(self._drivers.follow_log(job.submission_id)) as pieces:
            while True:
                async with asyncio.timeout(_SILENCE_S):
                    text = await anext(pieces, None)
                if text is None:
                    return
                position += len(text)
                yield text, position

    async def _read(self, job: Job, attempt: int) -> str:
        if not 0 < attempt <= job.attempt:
            return ""
        outage: UnavailableError | None = None
        try:
            log = await self._drivers.log(job.submission_id_of(attempt))
        except UnavailableError as error:
            log, outage = None, error
        if not log and job.run_id:
            log = await self._runs.read_log(job.run_id, attempt)
        if log is None and outage is not None:
            raise outage
        return log or ""

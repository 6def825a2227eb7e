"""Bursts of submissions: how long each waits, and whether each made exactly one job."""

import asyncio
import time
from collections import Counter
from typing import Any

import aiohttp
from control_plane_stack import Bench
from latency import closed_loop, open_loop, summary
from sqlalchemy import func, select

from service.client import Client
from service.database import Database
from service.tables import AuditEntry, Job, JobEvent

OPEN = "open"
_RESEND_EVERY = 10
"""Of so many submissions one is sent twice at once, and another again after the burst."""
_ONE_EACH = (1, 1)
"""One event tells that a job is queued, and one entry of the audit log who submitted it."""


class Burst:
    """One burst; its jobs carry its name as a tag, and each its number in its name."""

    def __init__(self, bench: Bench, name: str) -> None:
        self._bench = bench
        self._name = name
        self._answers: dict[int, list[str]] = {}
        self.num_refused = 0

    async def run(self, num_jobs: int, num_connections: int, per_second: float | None) -> Any:
        """Submit jobs and count what became of them.

        Args:
            num_jobs: Different submissions.
            num_connections: Connections that they share.
            per_second: How many are due in a second; None sends each when its connection is free.
        """
        async with self._session(num_connections) as session:
            self._connection = session
            began = time.perf_counter()
            if per_second is None:
                seconds = await closed_loop(self._submit, num_jobs, num_connections)
            else:
                seconds = await open_loop(self._submit, num_jobs, per_second, seed=num_jobs)
            took_s = time.perf_counter() - began
            for number in range(_RESEND_EVERY // 2, num_jobs, _RESEND_EVERY):
                await self._send(number)
            found = await self._count(num_jobs)
            await self._cancel_all(num_connections)
        return {
            "connections": num_connections,
            "due_per_s": per_second,
            "answered_per_s": round(num_jobs / took_s, 1),
            **summary(seconds),
            **found,
        }

    def _session(self, num_connections: int) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=num_connections),
            headers=self._bench.headers,
            timeout=aiohttp.ClientTimeout(120),
        )

    async def _submit(self, number: int) -> None:
        if number % _RESEND_EVERY == 0:
            await asyncio.gather(self._send(number), self._send(number))
        else:
            await self._send(number)

    async def _send(self, number: int) -> None:
        spec = self._bench.spec(f"{self._name}-{number}", tags=[self._name])
        headers = {"Idempotency-Key": f"{self._name}-{number}"}
        async with self._connection.post(self._bench.url, json=spec, headers=headers) as response:
            answer = await response.json()
        if response.status in {200, 201}:
            self._answers.setdefault(number, []).append(answer["id"])
        else:
            self.num_refused += 1
            print(f"{self._name}-{number}: {response.status} {answer}", flush=True)

    async def _count(self, num_jobs: int) -> dict[str, int]:
        """Hold what was answered to what the API lists and the database has."""
        listed = Counter(await asyncio.to_thread(self._listed))
        stored, traces = await self._stored()
        lost = doubled = 0
        for number in range(num_jobs):
            answered = set(self._answers.get(number, []))
            kept = stored.get(f"{self._name}-{number}", [])
            is_whole = len(kept) == 1 and listed[kept[0]] == 1 and traces[kept[0]] == _ONE_EACH
            lost += not (is_whole and answered == set(kept))
            doubled += max(0, len(kept) - 1) + len(answered.difference(kept[:1]))
        return {"lost": lost, "doubled": doubled, "refused": self.num_refused}

    def _listed(self) -> list[str]:
        """Every job of the burst that the API lists, as often as it does."""
        ids: list[str] = []
        with Client(self._bench.stack.api_url, self._bench.stack.token, timeout_s=120) as client:
            has_more = True
            while has_more:
                after = ids[-1] if ids else None
                page = client.list_jobs(limit=200, after=after, tags=[self._name])
                ids += [job.id for job in page.data]
                has_more = page.has_more
        return ids

    async def _stored(self) -> tuple[dict[str, list[str]], dict[str, tuple[int, int]]]:
        """Ids by name, and how many events and audit entries each job has."""
        database = Database(self._bench.database_url)
        mine = Job.name.startswith(f"{self._name}-")
        try:
            async with database.reading() as session:
                jobs = (await session.execute(select(Job.name, Job.id).where(mine))).all()
                ids = select(Job.id).where(mine)
                events = select(JobEvent.job_id, func.count()).where(JobEvent.job_id.in_(ids))
                entries = select(AuditEntry.target, func.count()).where(AuditEntry.target.in_(ids))
                num_events = dict((await session.execute(events.group_by(JobEvent.job_id))).all())
                num_entries = dict(
                    (await session.execute(entries.group_by(AuditEntry.target))).all()
                )
        finally:
            await database.close()
        stored: dict[str, list[str]] = {}
        for name, job_id in jobs:
            stored.setdefault(name, []).append(job_id)
        traces = {
            job_id: (num_events.get(job_id, 0), num_entries.get(job_id, 0)) for _, job_id in jobs
        }
        return stored, traces

    async def _cancel_all(self, num_connections: int) -> None:
        """Take the jobs out of the queue."""
        ids = [job_id for answered in self._answers.values() for job_id in set(answered)]

        async def cancel(index: int) -> None:
            async with self._connection.post(f"{self._bench.url}/{ids[index]}/cancel") as response:
                await response.read()

        await closed_loop(cancel, len(ids), min(4, num_connections))


async def measure_bursts(bench: Bench, num_jobs: int, per_second: float) -> dict[str, Any]:
    """An open-loop burst, and bursts of one, eight and 32 clients that never pause."""
    await Burst(bench, "warm-up").run(min(num_jobs, 20), 8, None)
    found = {OPEN: await Burst(bench, OPEN).run(num_jobs, 8, per_second)}
    for num_clients in (1, 8, 32):
        name = f"closed-{num_clients}"
        found[name] = await Burst(bench, name).run(num_jobs, num_clients, None)
    for name, burst in found.items():
        print(f"burst {name}: {burst}", flush=True)
    return found

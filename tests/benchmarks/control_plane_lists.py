"""Lists over many stored jobs: first pages, pages deep inside, and every filter."""

import random
import secrets
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import aiohttp
from control_plane_stack import Bench
from latency import closed_loop, summary
from pydantic import TypeAdapter
from sqlalchemy import insert

from jobs.specs import JobSpec
from service.callers import DEFAULT_PROJECT
from service.database import Database
from service.states import JobStatus
from service.tables import Job, JobEvent, JobFact, JobTag, utc_now

_SPEC: TypeAdapter[JobSpec] = TypeAdapter(JobSpec)
_PER_TRANSACTION = 1000
_TAGS = ("nightly", "paper", "ablation", "smoke")
_TEAMS = ("maths", "search", "speech")
_PROJECTS = (DEFAULT_PROJECT, "arithmetic", "commonsense")
_ENDINGS = (JobStatus.SUCCEEDED, JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)
_FAILURE = {"code": "row-too-long", "message": "line 7 has 300 tokens", "log_tail": "line\n" * 40}
_RARE = "rare"
_NUM_RARE = 5


def specs(bench: Bench) -> list[dict[str, Any]]:
    """One spec of each kind, with the defaults filled in that a job's record has."""
    tasks = [{"benchmark": "gsm8k", "data": bench.file_id}]
    base = {"base_model": str(bench.base_model)}
    space = {"adapter.curvature": {"loguniform": [0.1, 10]}, "adapter.r": {"choice": [4, 8]}}
    data = {"train": "s3://rows/train.jsonl", "validation_rows": 8}
    given = [
        bench.spec("finetune"),
        {**bench.spec("search"), "kind": "search", "space": space},
        {"kind": "evaluate", "name": "evaluate", **base, "tasks": tasks},
        {"kind": "compare", "name": "c", **base, "tasks": tasks, "data": data}
        | {"methods": ["lora", "hyplora"]},
        {"kind": "analyze", "name": "analyze", **base, "data": bench.file_id},
    ]
    return [_SPEC.validate_python(spec).model_dump(mode="json") for spec in given]


async def store_jobs(bench: Bench, num_jobs: int) -> None:
    """Put jobs that have ended into the database, as if they had run over the last weeks."""
    database = Database(bench.database_url)
    try:
        rows = list(_rows(specs(bench), num_jobs))
        for first in range(0, num_jobs, _PER_TRANSACTION):
            part = rows[first : first + _PER_TRANSACTION]
            async with database.writing() as session:
                for table in (Job, JobTag, JobFact, JobEvent):
                    await session.execute(
                        insert(table), [row for job in part for row in job[table.__tablename__]]
                    )
    finally:
        await database.close()


def _rows(kinds: list[dict[str, Any]], num_jobs: int) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """What the service keeps of each job, by table."""
    drawn = random.Random(0)
    now = utc_now()
    for number in range(num_jobs):
        job_id = f"job-{secrets.token_hex(8)}"
        spec = drawn.choice(kinds)
        status = drawn.choice(_ENDINGS)
        created_at = now - timedelta(seconds=60 * (num_jobs - number))
        tags = sorted({drawn.choice(_TAGS), drawn.choice(_TAGS)})
        if number % max(1, num_jobs // _NUM_RARE) == 0:
            tags.append(_RARE)
        facts = {"team": drawn.choice(_TEAMS), "ticket": str(number)}
        name = f"{spec['kind']}-{number % 200}"
        has_failed = status is JobStatus.FAILED
        job = {
            "id": job_id,
            "project": drawn.choice(_PROJECTS),
            "kind": spec["kind"],
            "name": name,
            "status": status,
            "spec": {**spec, "name": name, "tags": tags, "metadata": facts},
            "priority": 0,
            "revision": 5,
            "attempt": 1,
            "paused_attempt": 0,
            "run_id": secrets.token_hex(16),
            "experiment_id": "1",
            "num_restarts": 0,
            "progress": {"step": 100, "total_steps": 100, "loss": 1.25, "tokens_per_s": 900.0},
            "failure": _FAILURE if has_failed else None,
            "created_at": created_at,
            "submitted_at": created_at + timedelta(seconds=1),
            "started_at": created_at + timedelta(seconds=1),
            "finished_at": created_at + timedelta(seconds=50),
        }
        statuses = (JobStatus.QUEUED, JobStatus.RUNNING, status)
        yield {
            "jobs": [job],
            "job_tags": [{"job_id": job_id, "tag": tag} for tag in tags],
            "job_metadata": [
                {"job_id": job_id, "key": key, "value": value} for key, value in facts.items()
            ],
            "events": [
                {
                    "job_id": job_id,
                    "created_at": created_at,
                    "type": "status",
                    "data": {"status": each, "previous": None, "terminal": each is status},
                }
                for each in statuses
            ],
        }


class Lists:
    """Asks for lists in every way."""

    def __init__(self, bench: Bench, session: aiohttp.ClientSession, num_jobs: int) -> None:
        self._bench = bench
        self._session = session
        self._num_jobs = num_jobs

    async def queries(self) -> dict[str, dict[str, str]]:
        """What is asked for, by what it is."""
        ids = await self._all_ids()
        return {
            "first page": {},
            "after a half": {"after": ids[len(ids) // 2]},
            "after nine tenths": {"after": ids[len(ids) * 9 // 10]},
            "status": {"status": "failed"},
            "status and deep": {"status": "failed", "after": ids[len(ids) // 2]},
            "status that few have": {"status": "running"},
            "kind": {"kind": "search"},
            "name": {"name": "search-7"},
            "project": {"project": "arithmetic"},
            "tag": {"tag": "nightly"},
            "tag that few have": {"tag": _RARE},
            "metadata": {"metadata[team]": "maths"},
            "metadata of one": {"metadata[ticket]": str(self._num_jobs // 2)},
            "all": {"kind": "finetune", "status": "succeeded", "project": "commonsense"}
            | {"tag": "paper", "metadata[team]": "speech"},
        }

    async def ask(self, query: dict[str, str]) -> dict[str, Any]:
        """One page."""
        async with self._session.get(self._bench.url, params=query) as response:
            response.raise_for_status()
            page: dict[str, Any] = await response.json()
            return page

    async def _all_ids(self) -> list[str]:
        ids: list[str] = []
        has_more = True
        while has_more:
            query = {"limit": "200", **({"after": ids[-1]} if ids else {})}
            page = await self.ask(query)
            ids += [job["id"] for job in page["data"]]
            has_more = page["has_more"]
        if len(ids) != len(set(ids)) or len(ids) < self._num_jobs:
            raise RuntimeError(f"{len(ids)} jobs were listed, {len(set(ids))} of them different")
        return ids


async def measure_lists(bench: Bench, num_jobs: int, num_repeats: int) -> dict[str, Any]:
    """Time every query from one client, and all of them mixed from four."""
    began = time.perf_counter()
    await store_jobs(bench, num_jobs)
    print(f"{num_jobs} jobs stored in {time.perf_counter() - began:.0f} s", flush=True)
    async with aiohttp.ClientSession(headers=bench.headers) as session:
        lists = Lists(bench, session, num_jobs)
        queries = await lists.queries()
        wanted = [query for _ in range(num_repeats) for query in queries.values()]

        async def ask(number: int) -> None:
            await lists.ask(wanted[number])

        await closed_loop(ask, len(queries), 1)
        alone = await closed_loop(ask, len(wanted), 1)
        together = await closed_loop(ask, len(wanted), 4)
        counts = {name: len((await lists.ask(query))["data"]) for name, query in queries.items()}
    by_query = {
        name: {"jobs": counts[name], **summary(alone[index :: len(queries)])}
        for index, name in enumerate(queries)
    }
    found = {"one client": summary(alone), "four clients": summary(together), "queries": by_query}
    print(f"lists: {found['one client']}; four clients: {found['four clients']}", flush=True)
    return found

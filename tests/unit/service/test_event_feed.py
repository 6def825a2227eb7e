import asyncio

import pytest
from sqlalchemy import event

from service.database import Database
from service.errors import DatabaseUnavailableError
from service.event_feed import BATCH
from service.events import Events
from service.led_jobs import LedJobs
from service.states import JobStatus
from service.tables import Job, JobEvent, utc_now
from tests.unit.service.standing_lease import led_jobs

ON_BOTH_DATABASES = True

JOB = "job-0123456789abcdef"


@pytest.fixture
async def jobs(database: Database) -> LedJobs:
    """The jobs of a database that has one, which runs."""
    await database.upgrade()
    async with database.writing() as session:
        session.add(
            Job(
                id=JOB,
                kind="finetune",
                name="n",
                status=JobStatus.RUNNING,
                spec={},
                created_at=utc_now(),
            )
        )
    return led_jobs(database)


async def steps(events: Events, known: int = 0) -> list[int]:
    """Follow the job to its end and return the steps that were told of."""
    found = [each async for each in events.follow(JOB, known)]
    return [each.data["step"] for each in found if each.type == "progress"]


class StatementCount:
    """Counts the statements that a database has run."""

    def __init__(self, database: Database) -> None:
        self.value = 0
        engine = database._read_engine.sync_engine
        event.listen(engine, "before_cursor_execute", self._count)

    def _count(self, *_: object) -> None:
        self.value += 1


async def settled(events: Events, num_followers: int) -> None:
    """Return when so many followers wait for what comes next."""
    waits = events._feed._waits
    while sum(wait.num_followers for wait in waits.values()) < num_followers:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def test_followers_that_know_the_same_events_share_one_look(
    jobs: LedJobs, database: Database
) -> None:
    events = Events(database, 0.05)
    followers = [asyncio.create_task(steps(events)) for _ in range(50)]
    await settled(events, 50)
    count = StatementCount(database)

    await jobs.end(JOB, 0, JobStatus.SUCCEEDED, progress={"step": 1})

    assert await asyncio.gather(*followers) == [[1]] * 50
    assert count.value <= 5


async def test_followers_at_different_events_each_get_what_they_miss(
    jobs: LedJobs, database: Database
) -> None:
    events = Events(database, 0.001)
    for step in range(3):
        await jobs.note_progress(JOB, {"step": step})
    (first, second, _), _ = await events.page(JOB, 0, 10)
    followers = [
        asyncio.create_task(steps(events, known)) for known in (0, first.id, second.id, second.id)
    ]
    await settled(events, 4)

    await jobs.note_progress(JOB, {"step": 3})
    await jobs.end(JOB, 0, JobStatus.SUCCEEDED)

    assert await asyncio.gather(*followers) == [[0, 1, 2, 3], [1, 2, 3], [2, 3], [2, 3]]


async def test_one_follower_that_leaves_takes_nothing_from_the_others(
    jobs: LedJobs, database: Database
) -> None:
    events = Events(database, 0.001)
    leaving, staying = (asyncio.create_task(steps(events)) for _ in range(2))
    await settled(events, 2)

    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    await jobs.end(JOB, 0, JobStatus.SUCCEEDED, progress={"step": 7})

    assert await staying == [7]


async def test_nobody_is_looked_for_once_all_have_left(jobs: LedJobs, database: Database) -> None:
    events = Events(database, 0.001)
    follower = asyncio.create_task(steps(events))
    await settled(events, 1)
    looking = events._feed._looking
    assert looking is not None

    follower.cancel()
    await asyncio.wait([follower])
    await asyncio.wait_for(looking, 10)

    assert events._feed._waits == {}
    await jobs.end(JOB, 0, JobStatus.SUCCEEDED, progress={"step": 1})
    assert await steps(events) == [1]


async def test_a_history_that_is_longer_than_one_read_comes_whole(
    jobs: LedJobs, database: Database
) -> None:
    async with database.writing() as session:
        session.add_all(
            JobEvent(job_id=JOB, created_at=utc_now(), type="progress", data={"step": step})
            for step in range(2 * BATCH)
        )
    await jobs.end(JOB, 0, JobStatus.SUCCEEDED)

    assert await asyncio.wait_for(steps(Events(database, 3600)), 60) == list(range(2 * BATCH))


async def test_followers_sit_out_a_time_without_the_database(
    jobs: LedJobs, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = Events(database, 0.001)
    followers = [asyncio.create_task(steps(events)) for _ in range(3)]
    await settled(events, 3)
    was_away = asyncio.Event()

    def fail(self: Database) -> None:
        was_away.set()
        raise DatabaseUnavailableError("away")

    with monkeypatch.context() as patch:
        patch.setattr(Database, "reading", fail)
        await asyncio.wait_for(was_away.wait(), 30)
    await jobs.end(JOB, 0, JobStatus.SUCCEEDED, progress={"step": 1})

    assert await asyncio.gather(*followers) == [[1]] * 3

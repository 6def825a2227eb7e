import asyncio
import time
from datetime import timedelta

import pytest
from sqlalchemy import update

from service.database import Database
from service.leases import Lease
from service.tables import LeaseRow, utc_now

ON_BOTH_DATABASES = True


@pytest.fixture(autouse=True)
async def _tables(database: Database) -> None:
    await database.upgrade()


async def test_of_two_replicas_one_holds_the_lease(database: Database) -> None:
    first, second = Lease(database, "loop", 60), Lease(database, "loop", 60)

    assert await first.acquire()
    assert not await second.acquire()

    assert first.is_held
    assert not second.is_held


async def test_the_holder_renews_its_lease(database: Database) -> None:
    lease = Lease(database, "loop", 60)

    assert await lease.acquire()
    assert await lease.acquire()

    assert lease.is_held


async def test_a_released_lease_is_taken_over_at_once(database: Database) -> None:
    first, second = Lease(database, "loop", 60), Lease(database, "loop", 60)
    await first.acquire()

    await first.release()

    assert not first.is_held
    assert await second.acquire()


async def test_releasing_a_lease_of_another_leaves_it_alone(database: Database) -> None:
    first, second = Lease(database, "loop", 60), Lease(database, "loop", 60)
    await first.acquire()

    await second.release()

    assert not await second.acquire()


async def test_a_silent_holder_is_replaced_when_its_lease_has_run_out(database: Database) -> None:
    first, second = Lease(database, "loop", 60), Lease(database, "loop", 60)
    await first.acquire()
    await _let_run_out(database)

    assert await second.acquire()
    assert not await first.acquire()
    assert not first.is_held


async def test_of_many_replicas_that_ask_at_once_one_gets_the_lease(database: Database) -> None:
    replicas = [Lease(database, "loop", 60) for _ in range(10)]

    taken = await asyncio.gather(*(replica.acquire() for replica in replicas))

    assert sum(taken) == 1
    await _let_run_out(database)
    taken = await asyncio.gather(*(replica.acquire() for replica in replicas))
    assert sum(taken) == 1


async def test_a_holder_that_stalls_stops_acting_by_itself(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = Lease(database, "loop", 60)
    await lease.acquire()

    later = time.monotonic() + 61
    monkeypatch.setattr(time, "monotonic", lambda: later)

    assert not lease.is_held


async def test_leases_of_different_names_are_independent(database: Database) -> None:
    assert await Lease(database, "one", 60).acquire()
    assert await Lease(database, "two", 60).acquire()


async def _let_run_out(database: Database) -> None:
    async with database.writing() as session:
        await session.execute(update(LeaseRow).values(expires_at=utc_now() - timedelta(seconds=1)))

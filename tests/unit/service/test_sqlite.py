import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import func, select, text

from service.database import Database
from service.tables import LeaseRow, utc_now


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/jobs.db")
    await database.upgrade()
    yield database
    await database.close()


async def add(database: Database, name: str, order: list[str]) -> None:
    async with database.writing() as session:
        session.add(LeaseRow(name=name, holder="me", expires_at=utc_now()))
        await session.flush()
        order.append(name)


async def count(database: Database) -> int:
    async with database.reading() as session:
        return await session.scalar(select(func.count()).select_from(LeaseRow)) or 0


async def test_writers_get_in_in_the_order_in_which_they_came(database: Database) -> None:
    order: list[str] = []
    names = [str(number) for number in range(50)]

    await asyncio.gather(*(add(database, name, order) for name in names))

    assert order == names
    assert await count(database) == 50


async def test_while_another_process_writes_others_are_answered(
    database: Database, tmp_path: Path
) -> None:
    other = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    order: list[str] = []
    waiting = asyncio.create_task(add(database, "a", order))

    for _ in range(20):
        assert await count(database) == 0
    assert not order

    other.execute("COMMIT")
    other.close()
    await waiting
    assert await count(database) == 1


async def test_a_writer_that_is_cancelled_while_it_waits_leaves_the_database_usable(
    database: Database, tmp_path: Path
) -> None:
    other = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(add(database, "a", []))
    await asyncio.sleep(0.01)

    waiting.cancel()
    await asyncio.sleep(0.01)
    other.execute("COMMIT")
    other.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    await add(database, "b", [])
    assert await count(database) == 1


async def test_a_result_can_be_read_row_by_row(database: Database) -> None:
    await asyncio.gather(*(add(database, str(number), []) for number in range(3)))

    async with database.reading() as session:
        found = await session.execute(text("SELECT name FROM leases ORDER BY name"))
        assert [name for (name,) in found] == ["0", "1", "2"]

"""The migrations on both databases, with rows in every table that there is at each revision."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Connection, MetaData, Table, select
from sqlalchemy import types as sql

import service.database
from service.database import Database
from service.tables import Base

ON_BOTH_DATABASES = True

T = TypeVar("T")
NUM_ROWS = 3
Row = dict[str, Any]
Rows = dict[str, list[Row]]
"""The rows of each table, in the order of their primary keys."""


async def test_migrations_build_exactly_the_tables_that_the_code_uses(database: Database) -> None:
    await database.upgrade()

    assert await _run(database, _differences) == []


async def test_every_step_forwards_and_backwards_keeps_what_is_in_the_tables(
    database: Database,
) -> None:
    revisions = _revisions()
    kept: Rows = {}
    for revision in revisions:
        await database.migrate(revision)
        await _require(database, kept)
        kept |= await _run(database, lambda connection: _fill(connection, set(kept)))  # noqa: B023
    assert kept.keys() == {table.name for table in Base.metadata.sorted_tables}

    for revision in reversed(revisions[:-1]):
        await database.migrate(revision)
        await _require(database, kept)
    of_the_first = {name: kept[name] for name in await _run(database, _read)}
    await database.migrate("head")

    await _require(database, of_the_first)
    assert await _run(database, _differences) == []


async def test_what_the_newest_tables_hold_survives_an_older_service(database: Database) -> None:
    await database.upgrade()
    kept = await _run(database, lambda connection: _fill(connection, set()))

    for revision in _revisions()[::-1]:
        await database.migrate(revision)
        await _require(database, kept)
    await database.upgrade()

    # What came with a later revision is gone; what was there at the first is not.
    first_tables = {"jobs", "events", "files", "leases"}
    found = await _run(database, _read)
    for name in first_tables:
        assert len(found[name]) == NUM_ROWS


async def test_nothing_is_left_of_the_tables_at_the_base(database: Database) -> None:
    await database.upgrade()
    await _run(database, lambda connection: _fill(connection, set()))

    await database.migrate("base")

    assert await _run(database, _read) == {}


def _revisions() -> list[str]:
    """Every revision, the first one first."""
    config = Config()
    folder = Path(service.database.__file__).with_name("migrations")
    config.set_main_option("script_location", str(folder))
    scripts = ScriptDirectory.from_config(config).walk_revisions()
    return [script.revision for script in scripts][::-1]


async def _run(database: Database, work: Callable[[Connection], T]) -> T:
    async with database.writing() as session:
        return await (await session.connection()).run_sync(work)


async def _require(database: Database, kept: Rows) -> None:
    """Hold the database to the rows, as far as it has their tables and columns now."""
    found = await _run(database, _read)
    for name in kept.keys() & found.keys():
        for before, now in zip(kept[name], found[name], strict=True):
            shared = before.keys() & now.keys()
            assert {key: now[key] for key in shared} == {key: before[key] for key in shared}


def _tables(connection: Connection) -> list[Table]:
    metadata = MetaData()
    metadata.reflect(connection)
    return [table for table in metadata.sorted_tables if table.name != "alembic_version"]


def _read(connection: Connection) -> Rows:
    return {
        table.name: [
            dict(row._mapping)
            for row in connection.execute(select(table).order_by(*table.primary_key))
        ]
        for table in _tables(connection)
    }


def _fill(connection: Connection, filled: set[str]) -> Rows:
    """Put rows into every table that has none yet, and return them."""
    for table in _tables(connection):
        if table.name not in filled:
            rows = [{c.name: _value(c, number) for c in table.c} for number in range(NUM_ROWS)]
            connection.execute(table.insert(), rows)
    return {name: rows for name, rows in _read(connection).items() if name not in filled}


def _value(column: Column[Any], number: int) -> object:
    """Some value that the column can hold, another one for each number."""
    for key in column.foreign_keys:
        return _value(key.column, number)
    match column.type:
        case sql.String(length=length):
            return f"{number}-{column.name}"[:length]
        case sql.Boolean():
            return number % 2 == 0
        case sql.Integer():
            return number + 1
        case sql.Float() | sql.Numeric():
            return number + 0.5
        case sql.JSON():
            return {"number": number, "text": "ä\u20ac", "list": [1, None]}
        case sql.DateTime(timezone=has_zone):
            moment = datetime(2026, 3, 1, 12, 30, number, 250_000, tzinfo=UTC)
            return moment if has_zone else moment.replace(tzinfo=None)
        case sql.LargeBinary():
            return bytes([number, 255])
    raise AssertionError(f"give {column} of the type {column.type!r} a value here")


def _differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, Base.metadata))

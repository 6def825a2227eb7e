"""Sessions on the database, and its schema brought up to date.

Everything goes through `reading` or `writing`. No network call belongs inside either: on SQLite
there is one writer at a time, and on PostgreSQL the row stays locked.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

_SQLITE_BUSY_TIMEOUT_MS = 10_000
_BEGIN = "sqlite_begin"
_MIGRATION_LOCK = 0x68_79_70_6C_6F_72_61
"""Any number that nobody else locks on: "hyplora" in ASCII."""


class Database:
    """One database, opened on first use.

    Args:
        url: SQLAlchemy URL with an asyncio driver.
    """

    def __init__(self, url: str) -> None:
        self._engine = create_async_engine(url, pool_pre_ping=not url.startswith("sqlite"))
        # Taking SQLite's write lock at once lets a second writer wait; a lock that is upgraded
        # after a read fails without waiting when another writer came first.
        self._write_engine = self._engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})
        self._path = _file_of(url)
        if self._path is not None:
            _tune_sqlite(self._engine)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """A session that sees one state of the database and changes nothing."""
        async with AsyncSession(self._engine, expire_on_commit=False) as session:
            yield session

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncSession]:
        """A transaction that commits at the end of the block, or not at all."""
        session = AsyncSession(self._write_engine, expire_on_commit=False)
        async with session, session.begin():
            yield session

    async def upgrade(self) -> None:
        """Create the tables, or change them to what this version of the service expects."""
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        await self.migrate("head")

    async def migrate(self, revision: str) -> None:
        """Bring the schema to a revision, forwards or backwards, one process at a time."""
        async with self._write_engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                await connection.execute(
                    text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK}
                )
            await connection.run_sync(_migrate, revision)

    async def ping(self) -> None:
        """Ask the database for one row."""
        async with self.reading() as session:
            await session.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()


def _migrate(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.attributes["connection"] = connection
    current = MigrationContext.configure(connection).get_current_revision() or ""
    # Revisions are numbers of four digits, and every number sorts before "head".
    if revision == "base" or revision < current:
        command.downgrade(config, revision)
    else:
        command.upgrade(config, revision)


def _file_of(url: str) -> Path | None:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return None
    return Path(parsed.database)


def _tune_sqlite(engine: AsyncEngine) -> None:
    """Readers beside one writer, checked foreign keys, and transactions that SQLAlchemy begins."""

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        # The sqlite3 module would begin transactions by itself, and too late.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {_SQLITE_BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))

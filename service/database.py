"""Sessions on the database, and its schema brought up to date.

Everything goes through `reading` or `writing`. No network call belongs inside either: on SQLite
there is one writer at a time, and on PostgreSQL the row stays locked. Both raise
`DatabaseUnavailableError` where the database is away, out of room or too slow.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, event, make_url, text
from sqlalchemy.dialects import registry
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from service.database_outages import is_outage
from service.errors import DatabaseUnavailableError
from service.sqlite import PromptSqlite

_SQLITE_BUSY_TIMEOUT_MS = 10_000

_STATEMENT_TIMEOUT_S = 10
"""After this the server itself ends a statement, one that waits for a lock included."""
_TRANSACTION_TIMEOUT_S = 15.0
"""After this a server that does not answer at all is given up."""
_CONNECT_TIMEOUT_S = 5.0
_POOL = {"pool_size": 10, "max_overflow": 10, "pool_timeout": 5.0, "pool_pre_ping": True}
"""PostgreSQL takes 100 connections by default: enough for four replicas and an administrator."""

_MIGRATION_LOCK = 0x68_79_70_6C_6F_72_61
"""Any number that nobody else locks on: "hyplora" in ASCII."""


class Database:
    """One database, opened on first use.

    Args:
        url: SQLAlchemy URL: sqlite+aiosqlite, whose driver is `service.sqlite`, or
            postgresql+asyncpg.
        timeout_s: Seconds that a transaction on PostgreSQL may take; one on SQLite asks no server.
        on_outage: Called each time that a transaction fails since the database is away.
    """

    def __init__(
        self,
        url: str,
        timeout_s: float = _TRANSACTION_TIMEOUT_S,
        on_outage: Callable[[], None] = lambda: None,
    ) -> None:
        self._path = _file_of(url)
        self._on_outage = on_outage
        self._turn: AbstractAsyncContextManager[None]
        if make_url(url).get_backend_name() == "sqlite":
            self._read_engine = _open_sqlite(url, takes_write_lock=False)
            self._write_engine = _open_sqlite(url, takes_write_lock=True)
            # SQLite's own waiting is by chance: under a burst, some writers would never get in.
            self._turn = asyncio.Lock()
            self._timeout_s = None
        else:
            self._write_engine = _open_postgres(url)
            self._read_engine = self._write_engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
            self._turn = nullcontext()
            self._timeout_s = timeout_s

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """A session that sees one state of the database and changes nothing.

        Raises:
            DatabaseUnavailableError: If the database does not answer.
        """
        session = AsyncSession(self._read_engine, expire_on_commit=False)
        async with self._answering(), session:
            yield session

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncSession]:
        """A transaction that commits at the end of the block, or not at all.

        Raises:
            DatabaseUnavailableError: If the database does not answer. Where it was lost during the
                commit itself, nobody knows whether that was done.
        """
        session = AsyncSession(self._write_engine, expire_on_commit=False)
        async with self._answering(), self._turn, session, session.begin():
            yield session

    async def upgrade(self) -> None:
        """Create the tables, or change them to what this version of the service expects."""
        await self.migrate("head")

    async def migrate(self, revision: str) -> None:
        """Bring the schema to a revision, forwards or backwards, one process at a time."""
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        async with self._write_engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                # Another replica's migration, and one's own, may take their time.
                await connection.execute(text("SET LOCAL statement_timeout = 0"))
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
        await self._read_engine.dispose()
        await self._write_engine.dispose()

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        limit = asyncio.timeout(self._timeout_s)
        try:
            async with limit:
                yield
        except (SQLAlchemyError, OSError) as error:
            if not (limit.expired() or is_outage(error)):
                raise
            self._on_outage()
            raise DatabaseUnavailableError(
                "the database does not answer; try again in a moment"
            ) from error


def _open_postgres(url: str) -> AsyncEngine:
    return create_async_engine(
        url,
        **_POOL,
        connect_args={
            "async_creator_fn": _connect,
            "timeout": _CONNECT_TIMEOUT_S,
            "server_settings": {
                "application_name": "hyplora",
                "statement_timeout": f"{_STATEMENT_TIMEOUT_S}s",
                # Rows that a stalled replica has locked become free.
                "idle_in_transaction_session_timeout": f"{2 * _STATEMENT_TIMEOUT_S}s",
            },
        },
    )


async def _connect(*arguments: object, **options: object) -> object:
    """Open a connection, and tell a failure from the many others of the operating system's."""
    import asyncpg  # only PostgreSQL needs it, and an installation for SQLite lacks it

    try:
        return await asyncpg.connect(*arguments, **options)
    except OSError as error:  # no such socket, no such host, no answer in time
        raise ConnectionError(str(error)) from error


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


def _open_sqlite(url: str, takes_write_lock: bool) -> AsyncEngine:
    """Readers beside one writer, and checked foreign keys."""
    registry.register("sqlite.prompt", PromptSqlite.__module__, PromptSqlite.__name__)
    engine = create_async_engine(
        make_url(url).set(drivername="sqlite+prompt"), takes_write_lock=takes_write_lock
    )

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        # The sqlite3 module would begin transactions by itself, and too late.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {_SQLITE_BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    return engine

"""SQLite for SQLAlchemy's asyncio: statements run where they are called, without a thread.

A statement on a local file takes tens of microseconds. Handing it to a thread and back takes more,
and happens some thirty times for one submission; while other requests keep the interpreter busy,
each return can wait for 5 ms. So only what may wait goes to a thread: taking the write lock, which
another process can hold, and committing, which ends when the disk has it.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import URL
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine.interfaces import ConnectArgsType
from sqlalchemy.pool import AsyncAdaptedQueuePool, Pool, PoolProxiedConnection
from sqlalchemy.util import await_only


class _Cursor(sqlite3.Cursor):
    async def _async_soft_close(self) -> None:
        """SQLAlchemy awaits this of a result that is still to be read."""


class _Connection(sqlite3.Connection):
    def cursor(  # type: ignore[override]  # SQLAlchemy passes no factory
        self, factory: type[sqlite3.Cursor] = _Cursor
    ) -> sqlite3.Cursor:
        return super().cursor(factory)


class PromptSqlite(SQLiteDialect_pysqlite):
    """A dialect for `create_async_engine` whose connections are those of the sqlite3 module.

    Transactions begin by SQLAlchemy's say, not by the sqlite3 module's, which is too late.

    Args:
        takes_write_lock: Whether a transaction takes the write lock as it begins. A second writer
            then waits; a lock that is upgraded after a read fails at once if another came first.
    """

    driver = "prompt"
    is_async = True
    supports_statement_cache = True

    def __init__(self, takes_write_lock: bool = False, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self._takes_write_lock = takes_write_lock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite")

    @classmethod
    def get_pool_class(cls, url: URL) -> type[Pool]:
        """A pool whose waiters are tasks."""
        return AsyncAdaptedQueuePool

    def create_connect_args(self, url: URL) -> ConnectArgsType:
        """What sqlite3.connect is called with."""
        arguments, options = super().create_connect_args(url)
        return arguments, {**options, "factory": _Connection}

    def do_begin(self, dbapi_connection: PoolProxiedConnection) -> None:
        """Begin a transaction."""
        cursor = dbapi_connection.cursor()
        if self._takes_write_lock:
            await_only(self._in_thread(lambda: cursor.execute("BEGIN IMMEDIATE")))
        else:
            cursor.execute("BEGIN")
        cursor.close()

    def do_commit(self, dbapi_connection: PoolProxiedConnection) -> None:
        """End a transaction when the disk has it."""
        await_only(self._in_thread(dbapi_connection.commit))

    async def _in_thread(self, call: Callable[[], object]) -> None:
        running = asyncio.get_running_loop().run_in_executor(self._thread, call)
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            # Until it ends, the connection is no one else's.
            await asyncio.wait([running])
            raise

"""What the service makes of a PostgreSQL server that is stopped, hangs or is full."""

import signal
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from service.database import Database
from service.errors import DatabaseUnavailableError
from service.leases import Lease
from tests.postgres import PostgresServer

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of these tests alone, since they stop it."""
    with PostgresServer(max_connections="8") as server:
        yield server


@pytest.fixture
async def database(server: PostgresServer) -> AsyncIterator[Database]:
    database = Database(server.create_database(), timeout_s=1.0)
    await database.upgrade()
    yield database
    await database.close()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["stopped", "crashed"])
async def test_a_server_that_is_started_again_is_used_again(
    server: PostgresServer, database: Database, how: signal.Signals
) -> None:
    lease = Lease(database, "loop", 60)
    assert await lease.acquire()

    server.stop(how)
    for _ in range(3):
        with pytest.raises(DatabaseUnavailableError):
            await database.ping()
    server.start()

    await database.ping()
    assert await lease.acquire()
    assert not await Lease(database, "loop", 60).acquire()


async def test_a_server_that_hangs_is_given_up_in_time(
    server: PostgresServer, database: Database
) -> None:
    await database.ping()
    server.hang()
    try:
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailableError):
            await database.ping()
        seconds = time.monotonic() - began
    finally:
        server.go_on()

    assert seconds < 10
    await database.ping()


async def test_a_server_without_a_free_connection_is_busy_and_not_broken(
    server: PostgresServer, database: Database
) -> None:
    others = Database(server.create_database())
    try:
        with pytest.raises(DatabaseUnavailableError):
            await _hold_connections(others, 9)
    finally:
        await others.close()

    await database.ping()


async def _hold_connections(database: Database, number: int) -> None:
    async with database.writing() as session:
        await session.connection()
        if number > 1:
            await _hold_connections(database, number - 1)

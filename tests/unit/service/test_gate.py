"""The gate over a real database, with a clock that stands still."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, update
from sqlalchemy.exc import OperationalError

from service import gate as gate_module
from service.callers import Caller, Scope
from service.database import Database
from service.errors import DatabaseUnavailableError, RateLimitedError, UnauthorizedError
from service.gate import Gate
from service.key_tokens import KeyToken, matches, parse_token
from service.keys import Keys
from service.rate_limits import RateLimit
from service.tables import ApiKey, utc_now


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Entrance:
    """A gate, its keys and its clock; counts how often a secret is hashed."""

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.database = database
        self.keys = Keys(database)
        self.clock = Clock()
        self.num_hashed = 0
        self.gate = self.open(num_failures=5)
        monkeypatch.setattr(gate_module, "matches", self._count)

    def open(self, num_failures: int) -> Gate:
        requests = RateLimit(6000, 1000, self.clock)
        failures = RateLimit(num_failures, num_failures, self.clock)
        return Gate(self.keys, requests, failures, self.clock)

    async def admit(self, text: str, address: str = "192.0.2.1") -> Caller:
        return await self.gate.admit(text, address, "request-1")

    async def key(self, scope: Scope = Scope.SUBMIT, **changes: object) -> str:
        _, text = await self.keys.create("tests", "sums", [scope])
        if changes:
            await self.change(text, **changes)
        return text

    async def change(self, text: str, **changes: object) -> None:
        token = parse_token(text)
        assert token is not None
        async with self.database.writing() as session:
            query = update(ApiKey).where(ApiKey.id == token.key_id)
            await session.execute(query.values(**changes))

    def _count(self, secret: str, stored: str) -> bool:
        self.num_hashed += 1
        return matches(secret, stored)


@pytest.fixture
async def entrance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Entrance]:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/keys.db")
    await database.upgrade()
    yield Entrance(database, monkeypatch)
    await database.close()


async def test_a_key_opens_its_project_with_its_scopes_and_those_they_include(
    entrance: Entrance,
) -> None:
    caller = await entrance.admit(await entrance.key(Scope.SUBMIT))

    assert caller.project == caller.only_project == "sums"
    assert caller.scopes == {Scope.READ, Scope.SUBMIT}
    assert caller.request_id == "request-1"


async def test_an_administrator_has_every_scope_and_sees_every_project(
    entrance: Entrance,
) -> None:
    caller = await entrance.admit(await entrance.key(Scope.ADMIN))

    assert caller.scopes == set(Scope)
    assert caller.only_project is None


async def test_a_key_is_hashed_once_however_often_and_at_once_it_comes(
    entrance: Entrance,
) -> None:
    text = await entrance.key()

    await asyncio.gather(*(entrance.admit(text) for _ in range(20)))
    entrance.clock.now = 600.0
    await entrance.admit(text)

    assert entrance.num_hashed == 1


async def test_requests_that_come_together_read_a_record_again_once(
    entrance: Entrance, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = await entrance.key()
    await entrance.admit(text)
    find, num_reads = entrance.keys.find, 0

    async def count(key_id: str) -> ApiKey | None:
        nonlocal num_reads
        num_reads += 1
        return await find(key_id)

    monkeypatch.setattr(entrance.keys, "find", count)
    for now in (1.0, 2.1):
        entrance.clock.now = now
        await asyncio.gather(*(entrance.admit(text) for _ in range(20)))

    assert num_reads == 1


async def test_a_record_that_could_not_be_read_again_stays_old(
    entrance: Entrance, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = await entrance.key()
    await entrance.admit(text)
    await entrance.change(text, revoked_at=utc_now())
    entrance.clock.now = 2.1

    async def fail(_key_id: str) -> ApiKey | None:
        raise OperationalError("SELECT", {}, OSError("gone"))

    with monkeypatch.context() as outage:
        outage.setattr(entrance.keys, "find", fail)
        with pytest.raises(OperationalError):
            await entrance.admit(text)
    with pytest.raises(UnauthorizedError, match="was revoked"):
        await entrance.admit(text)


async def test_a_key_that_a_restored_database_lacks_is_not_known(entrance: Entrance) -> None:
    text = await entrance.key()
    await entrance.admit(text)
    async with entrance.database.writing() as session:
        await session.execute(delete(ApiKey))

    entrance.clock.now = 2.1

    with pytest.raises(UnauthorizedError, match="not known"):
        await entrance.admit(text)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"revoked_at": utc_now()}, "was revoked"),
        ({"expires_at": utc_now() - timedelta(seconds=1)}, "expired"),
    ],
)
async def test_what_another_replica_does_to_a_key_is_noticed_within_two_seconds(
    entrance: Entrance, changes: dict[str, object], reason: str
) -> None:
    text = await entrance.key()
    await entrance.admit(text)

    await entrance.change(text, **changes)
    entrance.clock.now = 2.1

    with pytest.raises(UnauthorizedError, match=reason):
        await entrance.admit(text)


async def test_a_key_expires_while_its_record_is_still_fresh(
    entrance: Entrance, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = utc_now() + timedelta(seconds=30)
    text = await entrance.key(expires_at=soon)
    await entrance.admit(text)

    monkeypatch.setattr(gate_module, "utc_now", lambda: soon)

    with pytest.raises(UnauthorizedError, match="expired"):
        await entrance.admit(text)


async def test_a_wrong_secret_is_refused_also_while_the_right_one_is_known(
    entrance: Entrance,
) -> None:
    text = await entrance.key()
    caller = await entrance.admit(text)

    with pytest.raises(UnauthorizedError, match="not known"):
        await entrance.admit(KeyToken(caller.key_id, "X" * 43).text)


async def test_an_unknown_id_costs_no_hash(entrance: Entrance) -> None:
    with pytest.raises(UnauthorizedError, match="not known"):
        await entrance.admit(KeyToken("key-0000000000000000", "X" * 43).text)

    assert entrance.num_hashed == 0


async def test_an_address_that_guesses_secrets_costs_few_hashes(entrance: Entrance) -> None:
    caller = await entrance.admit(await entrance.key(), "192.0.2.9")
    guess = KeyToken(caller.key_id, "X" * 43).text

    results = await asyncio.gather(
        *(entrance.admit(guess) for _ in range(20)), return_exceptions=True
    )

    assert sum(isinstance(result, RateLimitedError) for result in results) == 15
    assert entrance.num_hashed == 1 + 5


async def test_a_key_that_is_known_passes_from_an_address_that_is_stopped(
    entrance: Entrance,
) -> None:
    text = await entrance.key()
    await entrance.admit(text)
    for _ in range(5):
        with pytest.raises(UnauthorizedError):
            await entrance.admit("guess")
    with pytest.raises(RateLimitedError):
        await entrance.admit("guess")

    assert await entrance.admit(text)


async def test_addresses_of_one_ipv6_network_count_as_one(entrance: Entrance) -> None:
    for number in range(5):
        with pytest.raises(UnauthorizedError):
            await entrance.admit("guess", f"2001:db8::{number:x}")

    with pytest.raises(RateLimitedError):
        await entrance.admit("guess", "2001:db8::ffff")
    with pytest.raises(UnauthorizedError):
        await entrance.admit("guess", "2001:db8:0:1::1")


async def test_valid_keys_do_not_count_against_their_address(entrance: Entrance) -> None:
    for _ in range(8):
        assert await entrance.admit(await entrance.key())


async def test_the_last_use_is_written_beside_the_requests(entrance: Entrance) -> None:
    text = await entrance.key()
    caller = await entrance.admit(text)
    assert (await entrance.keys.get(caller.key_id)).last_used_at is None

    await entrance.gate.flush_uses()
    used_at = (await entrance.keys.get(caller.key_id)).last_used_at

    assert used_at is not None
    assert abs(utc_now() - used_at) < timedelta(minutes=1)


async def test_an_earlier_use_does_not_replace_a_later_one(entrance: Entrance) -> None:
    text = await entrance.key()
    later = utc_now() + timedelta(minutes=5)
    await entrance.change(text, last_used_at=later)
    caller = await entrance.admit(text)

    await entrance.gate.flush_uses()

    assert (await entrance.keys.get(caller.key_id)).last_used_at == later


async def ended(task: asyncio.Task[None]) -> None:
    """Let a task begin, and end it; what else it raises is raised."""
    await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_uses_wait_while_the_database_is_away(
    entrance: Entrance, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = await entrance.admit(await entrance.key())

    async def fail(_uses: object) -> None:
        raise DatabaseUnavailableError("the database does not answer")

    with monkeypatch.context() as outage:
        outage.setattr(entrance.keys, "note_uses", fail)
        with pytest.raises(DatabaseUnavailableError):
            await entrance.gate.flush_uses()
        await ended(asyncio.create_task(entrance.gate.note_uses()))
    await entrance.gate.flush_uses()

    assert (await entrance.keys.get(caller.key_id)).last_used_at is not None

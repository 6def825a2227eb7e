"""Lets requests in that carry a valid key, and none too often.

A key's record is read again after two seconds, so a revocation is noticed within that time by every
replica. The slow hash is computed once for as long as the key is among the thousand used last.
"""

import asyncio
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv6Address, ip_address, ip_network

from sqlalchemy.exc import SQLAlchemyError

from service.callers import Caller, all_scopes
from service.errors import DatabaseUnavailableError, RateLimitedError, UnauthorizedError
from service.key_tokens import KeyToken, matches, parse_token
from service.keys import Keys
from service.rate_limits import RateLimit, whole_seconds
from service.tables import ApiKey, utc_now

logger = logging.getLogger(__name__)

_FRESH_FOR_S = 2.0
_MAX_KNOWN = 1000
_NOTE_USES_EVERY_S = 60.0
_TOO_MANY_FAILURES = "too many requests with keys that are not valid came from this address"


@dataclass
class _Known:
    record: ApiKey
    read_at: float
    verified: bytes | None = None
    """Digest of the token whose secret was compared with the record's hash, and is right."""


class Gate:
    """Authenticates requests and limits their rate.

    Args:
        keys: All keys.
        requests: How often one key may ask.
        failures: How often one address may come with what is no valid key.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        keys: Keys,
        requests: RateLimit,
        failures: RateLimit,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = keys
        self._requests = requests
        self._failures = failures
        self._clock = clock
        self._known: OrderedDict[str, _Known] = OrderedDict()
        # One at a time: whatever is sent here, hashing takes one core and 16 MiB.
        self._hashing = asyncio.Lock()
        self._uses: dict[str, datetime] = {}

    async def admit(self, text: str, address: str, request_id: str) -> Caller:
        """Find out whose request it is.

        Args:
            text: The bearer token.
            address: Where the request comes from.
            request_id: Its id.

        Raises:
            RateLimitedError: If the key, or an address with bad ones, asks too often.
            UnauthorizedError: If the token is no valid key.
        """
        token = parse_token(text)
        known = await self._read(token.key_id) if token and token.key_id in self._known else None
        if token is None or known is None or not _is_verified(known, token):
            known = await self._authenticate(token, _network(address))
        _require_room(
            self._requests.take(known.record.id),
            f"the key {known.record.id} asks more often than this service allows",
        )
        _require_valid(known.record)
        self._uses[known.record.id] = utc_now()
        return Caller(
            key_id=known.record.id,
            project=known.record.project,
            scopes=all_scopes(known.record.scopes),
            request_id=request_id,
        )

    async def note_uses(self) -> None:
        """Write down once a minute, beside the requests, when keys were used last."""
        try:
            while True:
                await asyncio.sleep(_NOTE_USES_EVERY_S)
                await self._try_to_flush()
        finally:
            await self._try_to_flush()

    async def flush_uses(self) -> None:
        """Write down when keys were used last."""
        uses, self._uses = self._uses, {}
        try:
            await self._keys.note_uses(uses)
        except (DatabaseUnavailableError, SQLAlchemyError):
            self._uses = uses | self._uses
            raise

    async def _try_to_flush(self) -> None:
        try:
            await self.flush_uses()
        except (DatabaseUnavailableError, SQLAlchemyError):
            logger.warning("when keys were used is not written down yet", exc_info=True)

    async def _authenticate(self, token: KeyToken | None, network: str) -> _Known:
        """Compare a token with its record; what fails counts against its address."""
        _require_room(self._failures.wait_s(network), _TOO_MANY_FAILURES)
        known = await self._read(token.key_id) if token else None
        if token is None or known is None:
            self._failures.take(network)
        elif await self._verify(known, token, network):
            return known
        raise UnauthorizedError("this API key is not known here; `hyplora keys create` makes one")

    async def _verify(self, known: _Known, token: KeyToken, network: str) -> bool:
        async with self._hashing:
            if _is_verified(known, token):  # a request that came earlier did it
                return True
            _require_room(self._failures.take(network), _TOO_MANY_FAILURES)
            if not await asyncio.to_thread(matches, token.secret, known.record.hash):
                return False
            self._failures.give_back(network)
            known.verified = token.digest
            return True

    async def _read(self, key_id: str) -> _Known | None:
        """What is known of a key, read again if that is too old."""
        known = self._known.get(key_id)
        if known is None:
            read_at = self._clock()
            record = await self._keys.find(key_id)
            if record is None:
                return None
            # Another request may have come first, and may be comparing its secret.
            known = self._known.setdefault(key_id, _Known(record, read_at))
        elif self._clock() - known.read_at > _FRESH_FOR_S and not await self._refresh(known):
            self._known.pop(key_id, None)
            return None
        self._known[key_id] = known
        self._known.move_to_end(key_id)
        if len(self._known) > _MAX_KNOWN:
            self._known.popitem(last=False)
        return known

    async def _refresh(self, known: _Known) -> bool:
        """Read a record again, if it is still there; others go on meanwhile with what was known."""
        before, known.read_at = known.read_at, self._clock()
        try:
            record = await self._keys.find(known.record.id)
        except BaseException:
            known.read_at = before
            raise
        known.record = record or known.record
        return record is not None


def _require_room(wait_s: float | None, reason: str) -> None:
    if wait_s is not None:
        seconds = whole_seconds(wait_s)
        raise RateLimitedError(f"{reason}; try again in {seconds} s", seconds)


def _is_verified(known: _Known, token: KeyToken) -> bool:
    return known.verified is not None and secrets.compare_digest(known.verified, token.digest)


def _require_valid(key: ApiKey) -> None:
    """Told only to who has the secret."""
    if key.revoked_at is not None:
        raise UnauthorizedError(
            f"the API key {key.id} was revoked at {key.revoked_at:%Y-%m-%d %H:%M} UTC; "
            "ask an administrator for another"
        )
    if key.expires_at is not None and key.expires_at <= utc_now():
        raise UnauthorizedError(
            f"the API key {key.id} expired at {key.expires_at:%Y-%m-%d %H:%M} UTC; "
            "ask an administrator for another"
        )


def _network(address: str) -> str:
    """What counts as one address: of IPv6 the /64, which one machine has as a whole."""
    try:
        parsed = ip_address(address)
    except ValueError:  # a Unix socket, or a test
        return address
    return str(
        ip_network((parsed, 64), strict=False) if isinstance(parsed, IPv6Address) else parsed
    )

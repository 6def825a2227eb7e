"""A lease in the database: of all replicas, the one that holds it acts for the others.

Time alone keeps nobody out: a holder that is stopped in the middle of what it does can go on after
another has taken over. What it writes then is refused by `Lease.require`.
"""

import secrets
import socket
import time
from datetime import timedelta

from sqlalchemy import delete, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from service.database import Database
from service.tables import LeaseRow, utc_now


class LeaseLostError(Exception):
    """Another replica acts by now; the message says so to the operator."""


class Lease:
    """One replica's claim to one lease.

    A holder that stalls loses it in its own eyes no later than in those of the others: it counts
    the time to live from before it asked.

    Args:
        database: Shared by the replicas; their clocks agree to well within `ttl_s`.
        name: What the lease is for.
        ttl_s: Seconds for which it is held; renew it several times within them.
    """

    def __init__(self, database: Database, name: str, ttl_s: float) -> None:
        self._database = database
        self._name = name
        self._ttl_s = ttl_s
        self._holder = f"{socket.gethostname()[:40]}-{secrets.token_hex(6)}"
        self._held_until = 0.0

    @property
    def is_held(self) -> bool:
        """Whether this replica may act."""
        return time.monotonic() < self._held_until

    async def acquire(self) -> bool:
        """Take the lease if nobody else holds it, or renew it; whether it is held now."""
        asked_at = time.monotonic()
        taken = await self._renew() or await self._create()
        self._held_until = asked_at + self._ttl_s if taken else 0.0
        return taken

    async def require(self, session: AsyncSession) -> None:
        """Refuse a transaction unless nobody else acts, nor can begin to before its end.

        Raises:
            LeaseLostError: If another replica has taken over.
        """
        # On PostgreSQL who wants to take over waits for the row; on SQLite, for the transaction.
        holder = select(LeaseRow.holder).where(LeaseRow.name == self._name)
        if await session.scalar(holder.with_for_update(read=True)) != self._holder:
            self._held_until = 0.0
            raise LeaseLostError("another replica leads now; this one stands by")

    async def release(self) -> None:
        """Let another replica take over at once."""
        self._held_until = 0.0
        async with self._database.writing() as session:
            await session.execute(
                delete(LeaseRow).where(LeaseRow.name == self._name, LeaseRow.holder == self._holder)
            )

    async def _renew(self) -> bool:
        now = utc_now()
        is_free = or_(LeaseRow.holder == self._holder, LeaseRow.expires_at < now)
        async with self._database.writing() as session:
            renewed = await session.scalars(
                update(LeaseRow)
                .where(LeaseRow.name == self._name, is_free)
                .values(holder=self._holder, expires_at=now + timedelta(seconds=self._ttl_s))
                .returning(LeaseRow.name)
            )
            return renewed.first() is not None

    async def _create(self) -> bool:
        expires_at = utc_now() + timedelta(seconds=self._ttl_s)
        try:
            async with self._database.writing() as session:
                session.add(LeaseRow(name=self._name, holder=self._holder, expires_at=expires_at))
        except IntegrityError:
            return False  # another replica has it
        return True

"""API keys in the database: made, listed, revoked. A record outlives its key, for the audit log."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from copy import copy
from datetime import datetime
from typing import Self

from sqlalchemy import or_, select, update

from service.audit import record
from service.callers import Caller, Scope
from service.database import Database
from service.errors import KeyNotFoundError
from service.key_tokens import hash_secret, new_token
from service.paging import newest_first
from service.tables import ApiKey, utc_now

_KEY_ID = re.compile(r"key-[0-9a-f]{16}")


class Keys:
    """The API keys of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._caller: Caller | None = None

    def acting_for(self, caller: Caller) -> Self:
        """The same keys, whose changes the audit log puts down to a caller."""
        acting = copy(self)
        acting._caller = caller
        return acting

    async def create(
        self,
        name: str,
        project: str,
        scopes: Sequence[Scope],
        expires_at: datetime | None = None,
    ) -> tuple[ApiKey, str]:
        """Make a key; its text is known to nobody but the caller of this.

        Args:
            name: What people call it.
            project: Whose jobs and files it opens.
            scopes: What it may do.
            expires_at: When it stops to be valid; never by default.
        """
        token = new_token()
        key = ApiKey(
            id=token.key_id,
            name=name,
            project=project,
            scopes=sorted(set(scopes), key=list(Scope).index),
            hash=await asyncio.to_thread(hash_secret, token.secret),
            created_at=utc_now(),
            expires_at=expires_at,
        )
        async with self._database.writing() as session:
            session.add(key)
            record(session, self._caller, "key.create", key.id, key.project)
        return key, token.text

    async def get(self, key_id: str) -> ApiKey:
        """The record of a key.

        Raises:
            KeyNotFoundError: If there is none.
        """
        if (key := await self.find(key_id)) is None:
            raise _not_found(key_id)
        return key

    async def find(self, key_id: str) -> ApiKey | None:
        """The record of a key, if there is one."""
        if not _KEY_ID.fullmatch(key_id):
            return None
        async with self._database.reading() as session:
            return await session.get(ApiKey, key_id)

    async def page(self, limit: int, after: str | None = None) -> tuple[Sequence[ApiKey], bool]:
        """Keys, newest first, and whether there are more.

        Args:
            limit: Most keys that are returned.
            after: Id of the last key of the page before.

        Raises:
            KeyNotFoundError: If `after` is no key.
        """
        query = newest_first(ApiKey, limit, await self.get(after) if after is not None else None)
        async with self._database.reading() as session:
            keys = (await session.scalars(query)).all()
        return keys[:limit], len(keys) > limit

    async def revoke(self, key_id: str) -> ApiKey:
        """End a key for good; one that is revoked already stays so.

        Raises:
            KeyNotFoundError: If there is none.
        """
        await self.get(key_id)
        async with self._database.writing() as session:
            key = await session.get_one(ApiKey, key_id, with_for_update=True)
            if key.revoked_at is None:
                key.revoked_at = utc_now()
                record(session, self._caller, "key.revoke", key.id, key.project)
            return key

    async def is_any_valid(self) -> bool:
        """Whether anybody can use the API."""
        is_live = or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > utc_now())
        query = select(ApiKey.id).where(ApiKey.revoked_at.is_(None), is_live).limit(1)
        async with self._database.reading() as session:
            return await session.scalar(query) is not None

    async def note_uses(self, uses: Mapping[str, datetime]) -> None:
        """Keep when keys were used last, unless a later use is known already."""
        if not uses:
            return
        async with self._database.writing() as session:
            for key_id, used_at in sorted(uses.items()):
                is_later = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < used_at)
                await session.execute(
                    update(ApiKey).where(ApiKey.id == key_id, is_later).values(last_used_at=used_at)
                )


def _not_found(key_id: str) -> KeyNotFoundError:
    return KeyNotFoundError(f"there is no key {key_id!r}; GET /v1/keys lists them")

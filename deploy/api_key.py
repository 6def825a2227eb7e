"""The administrator's key of an embedded stack: in its database, and in a file for its clients."""

import asyncio
import os
from pathlib import Path

from service.callers import DEFAULT_PROJECT, Scope
from service.database import Database
from service.key_tokens import matches, parse_token
from service.keys import Keys
from service.tables import utc_now


def ensure_api_key(path: Path, database_url: str) -> str:
    """Read the API key in a file, or make one that only the file's owner can read.

    A key that the database does not know, or that was revoked or has expired, is replaced.

    Args:
        path: The file.
        database_url: The service's database, which is created or brought up to date.
    """
    kept = path.read_text(errors="replace").strip() if path.exists() else ""
    text = asyncio.run(_valid_key(kept, database_url))
    if text != kept:
        _write_secret(path, text)
    path.chmod(0o600)
    return text


async def _valid_key(kept: str, database_url: str) -> str:
    """The key that was kept, if it still opens everything, or another."""
    database = Database(database_url)
    try:
        await database.upgrade()
        keys = Keys(database)
        if await _is_valid(keys, kept):
            return kept
        _, text = await keys.create("embedded stack", DEFAULT_PROJECT, [Scope.ADMIN])
        return text
    finally:
        await database.close()


async def _is_valid(keys: Keys, text: str) -> bool:
    token = parse_token(text)
    key = await keys.find(token.key_id) if token else None
    if token is None or key is None or key.revoked_at is not None:
        return False
    if key.expires_at is not None and key.expires_at <= utc_now():
        return False
    return Scope.ADMIN in key.scopes and matches(token.secret, key.hash)


def _write_secret(path: Path, text: str) -> None:
    """Put a file in its place that nobody else could open at any time."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    new.replace(path)

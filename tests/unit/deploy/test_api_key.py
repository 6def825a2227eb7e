import asyncio
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from deploy.api_key import ensure_api_key
from service.database import Database
from service.key_tokens import hash_secret, parse_token
from service.tables import ApiKey, utc_now


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path}/hyplora.db"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "token"


def change(url: str, **changes: object) -> None:
    async def write() -> None:
        database = Database(url)
        async with database.writing() as session:
            await session.execute(update(ApiKey).values(**changes))
        await database.close()

    asyncio.run(write())


def test_the_first_start_makes_a_key_that_only_its_owner_can_read(path: Path, url: str) -> None:
    text = ensure_api_key(path, url)

    assert parse_token(text) is not None
    assert path.read_text() == text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_later_starts_keep_the_key(path: Path, url: str) -> None:
    text = ensure_api_key(path, url)
    path.chmod(0o644)

    assert ensure_api_key(path, url) == text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "changes",
    [
        {"revoked_at": utc_now()},
        {"expires_at": utc_now() - timedelta(days=1)},
        {"scopes": ["submit"]},
        {"hash": hash_secret("another secret", cost=2)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_key_that_no_longer_opens_everything_is_replaced(
    path: Path, url: str, changes: dict[str, object]
) -> None:
    text = ensure_api_key(path, url)
    change(url, **changes)

    assert ensure_api_key(path, url) != text
    assert path.read_text() != text


@pytest.mark.parametrize("content", [b"", b"a-token-of-an-older-version\n", b"\xff\xfe"])
def test_a_file_that_holds_no_key_gets_one(path: Path, url: str, content: bytes) -> None:
    path.write_bytes(content)

    text = ensure_api_key(path, url)

    assert parse_token(text) is not None
    assert path.read_text() == text
    assert list(path.parent.glob("token*")) == [path]


def test_a_key_of_another_database_is_replaced(path: Path, url: str, tmp_path: Path) -> None:
    text = ensure_api_key(path, f"sqlite+aiosqlite:///{tmp_path}/other.db")

    assert ensure_api_key(path, url) != text

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.database import Database
from tests.unit.service.stage import Stage, make_settings

BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what needs a database on both kinds of it, in files that say ON_BOTH_DATABASES = True."""
    is_asked = getattr(metafunc.module, "ON_BOTH_DATABASES", False)
    if is_asked and "database_url" in metafunc.fixturenames:
        metafunc.parametrize("database_url", BOTH, indirect=True)


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/new folder/jobs.db"
    return str(request.getfixturevalue("postgres").create_database())


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    yield database
    await database.close()


@pytest.fixture
async def stage(tmp_path: Path, database_url: str) -> AsyncIterator[Stage]:
    async with Stage(make_settings(tmp_path, database_url=database_url)) as stage:
        yield stage

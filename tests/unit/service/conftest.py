from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.service.stage import Stage, make_settings


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with Stage(make_settings(tmp_path)) as stage:
        yield stage

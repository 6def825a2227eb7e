from collections.abc import AsyncIterator

import pytest
from openai import AsyncOpenAI

from tests.unit.service.openai.sdk import client_of
from tests.unit.service.stage import TOKEN, Stage


@pytest.fixture
async def sdk(stage: Stage) -> AsyncIterator[AsyncOpenAI]:
    """OpenAI's own client, as it comes, with an administrator's key."""
    async with client_of(stage, TOKEN) as client:
        yield client

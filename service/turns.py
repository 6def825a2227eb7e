"""Turns at what takes MLflow long, so that the control loop finds a thread and a server free."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.errors import MlflowUnavailableError


class Turns:
    """Lets a few requests at a time do something, and the others wait.

    Args:
        number: How many at a time.
        patience_s: How long one waits before it is turned away (seconds).
    """

    def __init__(self, number: int = 2, patience_s: float = 30.0) -> None:
        self._free = asyncio.Semaphore(number)
        self._patience_s = patience_s

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """A turn, which lasts as long as the context.

        Raises:
            MlflowUnavailableError: If none comes in time.
        """
        try:
            async with asyncio.timeout(self._patience_s):
                await self._free.acquire()
        except TimeoutError:
            raise MlflowUnavailableError(
                "MLflow is busy with requests that came before; ask for less, or again in a moment"
            ) from None
        try:
            yield
        finally:
            self._free.release()

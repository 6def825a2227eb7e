"""Whether the service can do its work: its database, Ray and MLflow, each asked now."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from sqlalchemy.exc import SQLAlchemyError

from service.answers import CheckRead, ReadinessRead
from service.errors import RefusedError, UnavailableError

logger = logging.getLogger(__name__)

_TIMEOUT_S = 5.0
_FRESH_FOR_S = 1.0
"""Answers may be this old, so that a crowd of probes asks Ray and MLflow once."""


class Readiness:
    """Asks each part whether it answers.

    Args:
        pings: For each part, a call that returns if the part answers.
    """

    def __init__(self, pings: Mapping[str, Callable[[], Awaitable[None]]]) -> None:
        self._pings = pings
        self._lock = asyncio.Lock()
        self._answer: ReadinessRead | None = None
        self._answered_at = 0.0

    async def check(self) -> ReadinessRead:
        """Every part's state; the status is "ok" only if all of them answer."""
        async with self._lock:
            if self._answer is None or time.monotonic() - self._answered_at > _FRESH_FOR_S:
                results = await asyncio.gather(*map(_try, self._pings.values()))
                checks = dict(zip(self._pings, results, strict=True))
                is_ready = all(check.ok for check in results)
                self._answer = ReadinessRead(
                    status="ok" if is_ready else "unavailable", checks=checks
                )
                self._answered_at = time.monotonic()
            return self._answer


async def _try(ping: Callable[[], Awaitable[None]]) -> CheckRead:
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            await ping()
    except TimeoutError:
        return CheckRead(ok=False, detail=f"no answer within {_TIMEOUT_S:.0f} s")
    except (UnavailableError, RefusedError) as error:
        return CheckRead(ok=False, detail=str(error))
    except (SQLAlchemyError, OSError):
        logger.warning("the database does not answer", exc_info=True)
        return CheckRead(
            ok=False, detail="the database does not answer; the service's log says why"
        )
    return CheckRead(ok=True)

"""Times of many requests, and how they are sent."""

import asyncio
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence

Request = Callable[[int], Awaitable[object]]
"""Sends the request of a number and reads its answer to the end."""


def percentile(seconds: Sequence[float], share: float) -> float:
    """The least of the times that at least this share of them do not exceed."""
    ordered = sorted(seconds)
    return ordered[max(0, -(-len(ordered) * round(1000 * share) // 1000) - 1)]


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Times in milliseconds."""
    return {
        "p50_ms": round(1e3 * statistics.median(seconds), 2),
        "p99_ms": round(1e3 * percentile(seconds, 0.99), 2),
        "max_ms": round(1e3 * max(seconds), 2),
    }


async def closed_loop(send: Request, num_requests: int, num_clients: int) -> list[float]:
    """Seconds that each request took; every client sends its next one when it has an answer."""
    numbers = iter(range(num_requests))
    seconds: list[float] = []

    async def go_on() -> None:
        for number in numbers:
            began = time.perf_counter()
            await send(number)
            seconds.append(time.perf_counter() - began)

    await asyncio.gather(*(go_on() for _ in range(num_clients)))
    return seconds


async def open_loop(send: Request, num_requests: int, per_second: float, seed: int) -> list[float]:
    """Seconds from when each request was due, whether or not others are still answered.

    They are due at random moments, as requests of many independent users are. A request that has to
    wait for a connection, or for this process, has begun to wait when it was due.
    """
    drawn = random.Random(seed)
    due = time.perf_counter()
    seconds: list[float] = []

    async def send_when(number: int, moment: float) -> None:
        await send(number)
        seconds.append(time.perf_counter() - moment)

    async with asyncio.TaskGroup() as tasks:
        for number in range(num_requests):
            due += drawn.expovariate(per_second)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.create_task(send_when(number, due))
    return seconds

"""How often something may happen: one bucket of tokens for each key or address, in this process.

Replicas do not share their buckets: behind a load balancer, each allows the whole rate.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_MAX_BUCKETS = 10_000
"""The one that was used least recently goes first; a new one is full."""


@dataclass
class _Bucket:
    num_tokens: float
    filled_at: float


class RateLimit:
    """Token buckets by name.

    Args:
        per_minute: Tokens that flow into a bucket in a minute.
        burst: Tokens that a bucket holds.
        clock: Seconds that only grow.
    """

    def __init__(
        self, per_minute: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second = per_minute / 60
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, name: str) -> float | None:
        """Take a token out of a bucket.

        Returns:
            None, or the seconds until there is one if the bucket is empty.
        """
        if (wait_s := self.wait_s(name)) is None:
            self._filled(name).num_tokens -= 1
        return wait_s

    def wait_s(self, name: str) -> float | None:
        """Seconds until there is a token to take; None if there is one."""
        num_tokens = self._filled(name).num_tokens
        return None if num_tokens >= 1 else (1 - num_tokens) / self._per_second

    def give_back(self, name: str) -> None:
        """Undo a `take`."""
        bucket = self._filled(name)
        bucket.num_tokens = min(self._burst, bucket.num_tokens + 1)

    def _filled(self, name: str) -> _Bucket:
        now = self._clock()
        bucket = self._buckets.setdefault(name, _Bucket(self._burst, now))
        self._buckets.move_to_end(name)
        if len(self._buckets) > _MAX_BUCKETS:
            self._buckets.popitem(last=False)
        flowed = (now - bucket.filled_at) * self._per_second
        bucket.num_tokens = min(self._burst, bucket.num_tokens + flowed)
        bucket.filled_at = now
        return bucket


def whole_seconds(seconds: float) -> int:
    """What `Retry-After` says: at least one second, never too early."""
    return max(1, math.ceil(seconds))

"""Waiting for a service that is away for a moment."""

import time
from collections.abc import Callable

_LONGEST_WAIT_S = 5.0
"""Longest wait between two attempts to connect."""


class Outage:
    """Waits between attempts to connect, ever longer, and gives up when patience is over."""

    def __init__(
        self,
        first_wait_s: float,
        patience_s: float,
        on_begin: Callable[[Exception], None],
    ) -> None:
        """Prepare; the connection counts as working.

        Args:
            first_wait_s: Wait before the first new attempt (seconds); doubles with each failure.
            patience_s: Longest time without a connection (seconds).
            on_begin: Called with the error each time that the connection is lost.
        """
        self._first_wait_s = first_wait_s
        self._patience_s = patience_s
        self._on_begin = on_begin
        self.end()

    def end(self) -> None:
        """Note that the connection works."""
        self._wait_s = self._first_wait_s
        self._began_at: float | None = None

    def wait(self, error: Exception) -> None:
        """Sleep before the next attempt.

        Args:
            error: Why the last attempt failed.

        Raises:
            Exception: `error` itself, when patience is over.
        """
        now = time.monotonic()
        if self._began_at is None:
            self._began_at = now
            self._on_begin(error)
        if now + self._wait_s > self._began_at + self._patience_s:
            raise error
        time.sleep(self._wait_s)
        self._wait_s = min(2 * self._wait_s, _LONGEST_WAIT_S)

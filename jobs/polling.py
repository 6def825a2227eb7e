"""Looking at something every so often, beside what a process is there for."""

import threading
from collections.abc import Callable


class Poller:
    """A thread that looks until it is closed or has seen enough.

    Args:
        name: Of the thread.
        look: Called each time; returns whether it has seen enough.
        interval_s: Time between two looks, and before the first (seconds).
    """

    def __init__(self, name: str, look: Callable[[], bool], interval_s: float) -> None:
        self._look = look
        self._interval_s = interval_s
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def close(self, patience_s: float = 10.0) -> None:
        """End the thread; after `patience_s` it is left to end with its process."""
        self._closing.set()
        self._thread.join(patience_s)

    def _run(self) -> None:
        while not self._closing.wait(self._interval_s) and not self._look():
            pass

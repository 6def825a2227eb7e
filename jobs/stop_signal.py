"""Asking a training to stop: from the signal that a driver gets to the loop on its workers.

Ray's Jobs API can send a driver a signal and kill it after a grace time, and nothing else. The
driver passes the wish on through an actor; the workers look there between steps, write a last
checkpoint and return.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

import ray
from ray import ObjectRef
from ray.actor import ActorHandle
from ray.exceptions import RayError

from jobs.polling import Poller

logger = logging.getLogger(__name__)

_POLL_INTERVAL_S = 0.5
_ANSWER_TIMEOUT_S = 10.0


class StopSignal:
    """Holds the wish to stop; an actor that lives as long as its driver."""

    def __init__(self) -> None:
        self._requested = False
        self._has_listener = False

    def request(self) -> bool:
        """Ask to stop; returns whether a training listens."""
        self._requested = True
        return self._has_listener

    def poll(self) -> bool:
        """Whether a stop was asked for; whoever calls this will act on it."""
        self._has_listener = True
        return self._requested


def pass_on_sigterm(stop: ActorHandle) -> None:
    """From now on, SIGTERM asks the training to stop, or ends the driver where none listens yet."""

    def handle(_: int, __: FrameType | None) -> None:
        # Not here: the main thread may be in the middle of another call to Ray.
        threading.Thread(target=_request, args=(stop,), daemon=True).start()

    signal.signal(signal.SIGTERM, handle)


def _request(stop: ActorHandle) -> None:
    logger.info("asked to stop")
    if not ray.get(stop.request.remote()):
        # Ray Train takes SIGINT for the order to take its workers down and end the driver.
        os.kill(os.getpid(), signal.SIGINT)


class StopListener:
    """Tells a training loop whether a stop was asked for, without ever holding it up.

    Args:
        poll: Asks an actor whether to stop.
    """

    def __init__(self, poll: Callable[[], ObjectRef]) -> None:
        self._poll = poll
        self._requested = threading.Event()
        self._poller = Poller("stop-listener", self._look, _POLL_INTERVAL_S)

    @property
    def requested(self) -> bool:
        """Whether the training is to stop."""
        return self._requested.is_set()

    def close(self) -> None:
        """Listen no more."""
        self._poller.close()

    def _look(self) -> bool:
        try:
            if ray.get(self._poll(), timeout=_ANSWER_TIMEOUT_S):
                self._requested.set()
            return self.requested
        except RayError as error:  # the driver is gone, and this process with it in a moment
            logger.warning("the driver cannot be asked whether to stop: %s", error)
            return True

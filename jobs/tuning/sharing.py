"""Leaving room on the cluster where other jobs wait for it.

Warm trials follow one another in processes that never give their place back. So while another job's
reservation is pending, a search that holds several places keeps to half of them.
"""

import logging
import threading

import ray
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)
from ray.tune.search import ConcurrencyLimiter
from ray.util.state import list_placement_groups
from ray.util.state.exception import RayStateApiException

from jobs.polling import Poller

logger = logging.getLogger(__name__)

_POLL_INTERVAL_S = 2.0

others_wait = threading.Event()
"""Whether another job's reservation is pending. Of the process: what Ray Tune writes to disk and
brings back looks here, and holds no thread itself."""


class QueueWatch:
    """Keeps `others_wait` up to date, from a thread of the driver."""

    def __init__(self) -> None:
        self._job_id = ray.get_runtime_context().get_job_id()
        self._poller = Poller("queue-watch", self._look, _POLL_INTERVAL_S)

    def close(self) -> None:
        """Watch no more."""
        self._poller.close()
        others_wait.clear()

    def _look(self) -> bool:
        try:
            waiting = list_placement_groups(
                filters=[("state", "=", "PENDING"), ("creator_job_id", "!=", self._job_id)]
            )
        except RayStateApiException as error:
            logger.warning("the cluster does not tell who waits: %s", error)
            return False
        if waiting and not others_wait.is_set():
            logger.info("another job waits for a place: at most half of the trials at a time")
        (others_wait.set if waiting else others_wait.clear)()
        return False


class SharingLimiter(ConcurrencyLimiter):
    """Bounds the trials at a time, more so while other jobs wait."""

    def suggest(self, trial_id: str) -> dict[str, object] | None:
        """Suggest the next trial, unless there are as many as there may be."""
        if others_wait.is_set() and len(self.live_trials) >= max(1, self.max_concurrent // 2):
            return None
        return super().suggest(trial_id)


class _GivesBack(TrialScheduler):
    """Gives idle processes back while other jobs wait; Ray Tune would keep one."""

    def choose_trial_to_run(self, tune_controller: TuneController) -> Trial | None:
        """Choose as ever, among trials that get processes of their own."""
        if others_wait.is_set():
            tune_controller._cleanup_cached_actors(force_all=True)
        return super().choose_trial_to_run(tune_controller)


class Unhurried(_GivesBack, FIFOScheduler):
    """No trial is stopped early."""


class Asha(_GivesBack, AsyncHyperBandScheduler):
    """Asynchronous successive halving (arXiv 1810.05934)."""


class Median(_GivesBack, MedianStoppingRule):
    """The median stopping rule (Golovin et al. 2017)."""

"""The end of a search by what it has used up."""

import time
from collections.abc import Mapping
from typing import Any, ClassVar

from ray.tune import Stopper

from jobs.search_specs import BudgetSpec


class BudgetStopper(Stopper):
    """Ends a search after some time, or after its trials took some GPU time together.

    Args:
        budget: What may be used.
        gpus_per_trial: What each trial holds of a GPU.
        started_at: When the search began, in seconds since 1970: an earlier attempt counts.
    """

    gpu_seconds_before: ClassVar[float] = 0.0
    """What trials that ended in earlier attempts have used. Of the class, since Ray Tune brings
    back the object that the first attempt made."""

    def __init__(self, budget: BudgetSpec, gpus_per_trial: float, started_at: float) -> None:
        self._ends_at = None if budget.minutes is None else started_at + 60 * budget.minutes
        self._gpu_seconds = None if budget.gpu_hours is None else 3600 * budget.gpu_hours
        self._gpus_per_trial = gpus_per_trial
        self._seconds: dict[str, float] = {}

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Note what a trial has used; none is stopped by itself."""
        self._seconds[trial_id] = result["time_total_s"]
        return False

    def stop_all(self) -> bool:
        """Whether the budget is used up."""
        return self.reason() is not None

    def reason(self) -> str | None:
        """Which part of the budget is used up, for the user."""
        if self._ends_at is not None and time.time() >= self._ends_at:
            return "budget.minutes is used up"
        used = self.gpu_seconds_before + self._gpus_per_trial * sum(self._seconds.values())
        if self._gpu_seconds is not None and used >= self._gpu_seconds:
            return "budget.gpu_hours is used up"
        return None

"""When a search has used up what it may."""

import time

import pytest

from jobs.search_specs import BudgetSpec
from jobs.tuning.budget import BudgetStopper


def test_time_counts_from_the_begin_of_the_search_whatever_came_between() -> None:
    budget = BudgetSpec(minutes=10)
    assert BudgetStopper(budget, 0, started_at=time.time() - 599).reason() is None
    stopper = BudgetStopper(budget, 0, started_at=time.time() - 601)
    assert stopper.stop_all()
    assert stopper.reason() == "budget.minutes is used up"


def test_gpu_time_adds_up_over_trials_and_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    stopper = BudgetStopper(BudgetSpec(gpu_hours=1), 0.5, started_at=0)
    for trial, seconds in [("a", 1800), ("a", 3600), ("b", 3599)]:
        assert not stopper(trial, {"time_total_s": seconds})
    assert stopper.reason() is None
    monkeypatch.setattr(BudgetStopper, "gpu_seconds_before", 1.0)
    assert stopper.reason() == "budget.gpu_hours is used up"


def test_without_a_bound_a_search_ends_by_its_trials_alone() -> None:
    stopper = BudgetStopper(BudgetSpec(), 1, started_at=0)
    stopper("a", {"time_total_s": 1e9})
    assert not stopper.stop_all()

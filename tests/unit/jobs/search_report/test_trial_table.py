"""Which trials are the best, and which none beats."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.objective_specs import ObjectiveSpec
from jobs.search_report.trial_table import TrialRecord, completed, pareto_set, rank
from jobs.tickets import TrialState
from tests.unit.jobs.search_report.trials import LOSS, SIZE

AIMS = (ObjectiveSpec(metric=LOSS, mode="min"), ObjectiveSpec(metric=SIZE, mode="max"))
POINTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=25)


def record(name: str, loss: float, size: float = 0.0, **changes: object) -> TrialRecord:
    known = {"state": TrialState.COMPLETED, "objectives": {LOSS: loss, SIZE: size}} | changes
    return TrialRecord(trial_id=name, values={}, **known)  # type: ignore[arg-type]


def records(points: list[tuple[int, int]]) -> list[TrialRecord]:
    return [record(f"t{i}", float(x), float(y)) for i, (x, y) in enumerate(points)]


@pytest.mark.parametrize(("mode", "first"), [("min", "low"), ("max", "high")])
def test_the_best_comes_first_whether_less_or_more_is_better(mode: str, first: str) -> None:
    ranked = rank(
        [record("high", 2.0), record("low", 1.0)], [ObjectiveSpec(metric=LOSS, mode=mode)]
    )  # type: ignore[arg-type]
    assert ranked[0].trial_id == first


@pytest.mark.parametrize("state", [state for state in TrialState if state != TrialState.COMPLETED])
def test_only_trials_that_completed_are_ranked(state: TrialState) -> None:
    trials = [record("good", 1.0), record("early", 0.1, state=state)]
    assert [trial.trial_id for trial in rank(trials, AIMS)] == ["good"]


def test_a_trial_without_a_finite_objective_is_not_ranked() -> None:
    trials = [record("none", 0.0, objectives={}), record("nan", math.nan), record("inf", math.inf)]
    assert completed(trials, [LOSS]) == []


@given(POINTS)
def test_the_pareto_set_is_what_no_trial_beats(points: list[tuple[int, int]]) -> None:
    trials = records(points)
    front = {trial.trial_id for trial in pareto_set(trials, AIMS)}
    for trial, (loss, size) in zip(trials, points, strict=True):
        is_beaten = any(x <= loss and y >= size and (x, y) != (loss, size) for x, y in points)
        assert (trial.trial_id in front) == (not is_beaten)


@given(POINTS.filter(bool))
def test_the_pareto_set_begins_with_the_best_by_the_first_objective(
    points: list[tuple[int, int]],
) -> None:
    trials = records(points)
    front = pareto_set(trials, AIMS)
    assert front[0] == rank(trials, AIMS)[0]
    losses = [trial.objectives[LOSS] for trial in front]
    assert losses == sorted(losses)

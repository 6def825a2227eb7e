"""Fixed against learned curvature, and what may be said of it."""

import dataclasses
from itertools import combinations
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from jobs.objective_specs import ObjectiveSpec
from jobs.search_report.comparison import compare_groups, expected_best
from jobs.tickets import TrialState
from tests.unit.jobs.search_report.trials import LEARNED, LOSS, RANK, trials

AIM = ObjectiveSpec(metric=LOSS)


def test_a_real_difference_is_shown_with_welchs_interval() -> None:
    some = trials(40, lambda values: 1.0 - 0.2 * bool(values[LEARNED]), noise=0.05)
    (difference,) = compare_groups(some, LEARNED, AIM).differences
    groups = [[t.objectives[LOSS] for t in some if t.values[LEARNED] is v] for v in (False, True)]
    expected = stats.ttest_ind(*groups, equal_var=False).confidence_interval(0.95)
    assert difference.is_shown
    assert (difference.value, difference.other) == (False, True)
    assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high))


def test_groups_of_one_distribution_show_no_difference() -> None:
    (difference,) = compare_groups(trials(40, lambda _: 1.0), LEARNED, AIM).differences
    assert not difference.is_shown


def test_the_intervals_of_many_pairs_hold_together() -> None:
    found = compare_groups(trials(60), RANK, AIM)
    assert [group.value for group in found.groups] == [4, 8, 16, 32]
    assert len(found.differences) == 6
    some = [t for t in trials(60) if t.values[RANK] in (4, 8)]
    (alone,) = compare_groups(some, RANK, AIM).differences
    assert found.differences[0].high > alone.high


@given(
    st.lists(st.integers(-50, 50), min_size=1, max_size=7).flatmap(
        lambda values: st.tuples(st.just(values), st.integers(1, len(values)))
    )
)
def test_the_expected_best_is_the_mean_over_all_draws(drawn: tuple[list[int], int]) -> None:
    values, number = drawn
    draws = list(combinations(values, number))
    assert expected_best(values, number, "min") == pytest.approx(fmean(map(min, draws)))
    assert expected_best(values, number, "max") == pytest.approx(fmean(map(max, draws)))


def test_a_larger_group_has_no_advantage_by_its_size() -> None:
    some = trials(60, lambda _: 1.0, noise=0.1)
    few = [t for t in some if t.values[LEARNED]][:5] + [t for t in some if not t.values[LEARNED]]
    found = compare_groups(few, LEARNED, AIM)
    fixed, learned = found.groups
    assert found.num_at_equal_budget == 5
    assert learned.best_at_equal_budget == learned.best
    assert fixed.best_at_equal_budget is not None
    assert fixed.best is not None
    assert fixed.best_at_equal_budget > fixed.best


def test_a_group_in_which_no_trial_completed_has_counts_only() -> None:
    some = [
        dataclasses.replace(trial, state=TrialState.FAILED, objectives={})
        if trial.values[LEARNED]
        else trial
        for trial in trials(20)
    ]
    found = compare_groups(some, LEARNED, AIM)
    assert found.differences == ()
    assert found.groups[1].num_failed > 0
    assert (found.groups[1].mean, found.groups[1].best) == (None, None)
    assert found.groups[0].best is not None


def test_equal_values_in_both_groups_are_no_difference_and_no_warning() -> None:
    (difference,) = compare_groups(trials(20, lambda _: 1.0, noise=0.0), LEARNED, AIM).differences
    assert (difference.low, difference.high, difference.is_shown) == (0.0, 0.0, False)

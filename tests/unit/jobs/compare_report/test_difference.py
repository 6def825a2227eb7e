"""The difference of two methods: its variance, its interval and what leaves both as they are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jobs.compare_report.difference import Answers, Difference, PairedDifference, seed_luck
from jobs.compare_report.method_results import Array

SEEDS = st.integers(0, 2**32 - 1)


def drawn(rng: np.random.Generator, num_seeds: int, num_rows: int, *, luck: float = 0.1) -> Array:
    """Right and wrong answers of runs that share the difficulty of rows, but not their luck."""
    runs = rng.normal(0, luck, (num_seeds, 1)) + rng.normal(0, 0.5, (num_seeds, num_rows))
    return (np.linspace(-2, 2, num_rows) + rng.normal(0, 0.3, num_rows) + runs > 0).astype(float)


def paired(first: Answers, second: Answers, *others: Answers) -> PairedDifference:
    return PairedDifference(first, second, seed_luck([first, second, *others]))


def test_without_luck_of_rows_it_is_the_t_test_of_the_seeds() -> None:
    ours, theirs = np.array([0.71, 0.74, 0.69]), np.array([0.66, 0.70, 0.64])
    rows = np.ones(50)
    found = paired(Answers((ours[:, None] * rows,)), Answers((theirs[:, None] * rows,))).difference
    assert found.freedom == 4
    assert found.p_value == pytest.approx(stats.ttest_ind(ours, theirs).pvalue)


def test_with_one_run_each_it_has_the_variance_of_paired_rows() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(0, 1, (2, 1, 80))
    found = paired(Answers((ours,)), Answers((theirs,))).difference
    expected = stats.ttest_rel(ours[0], theirs[0])
    assert found.estimate / found.standard_error == pytest.approx(expected.statistic)
    assert (found.seed_variance, found.freedom) == (0, 0)


def test_the_variance_of_rows_and_seeds_is_right_on_average() -> None:
    rng = np.random.default_rng(0)
    differences = [
        paired(*(Answers((drawn(rng, 3, 200),)) for _ in range(2))).difference for _ in range(1500)
    ]
    seen = np.var([each.estimate for each in differences], ddof=1)
    claimed = np.mean([each.standard_error**2 for each in differences])
    assert claimed == pytest.approx(seen, rel=0.12)


def test_seeds_of_other_methods_tell_of_the_luck_of_these() -> None:
    rng = np.random.default_rng(0)
    first, second, third = (Answers((drawn(rng, 3, 100),)) for _ in range(3))
    base = Answers((drawn(rng, 1, 100),), is_trained=False)
    assert paired(first, second).difference.freedom == 4
    assert paired(first, second, third, base).difference.freedom == 6
    alone, beside = paired(first, second), paired(base, second, first)
    assert beside.difference.seed_variance == pytest.approx(alone.difference.seed_variance / 2)


@pytest.mark.parametrize(("rows", "seeds"), [(0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.2, 3.0)])
def test_the_tail_is_that_of_the_sum_of_a_normal_and_a_students_t(
    rows: float, seeds: float
) -> None:
    difference = Difference(0.0, rows, seeds, 4)
    rng = np.random.default_rng(0)
    normal, student = rng.normal(size=400_000), rng.standard_t(4, 400_000)
    sums = np.sqrt(rows) * normal + np.sqrt(seeds) * student
    for reach in (0.5, 2.0, 4.0):
        assert difference.tail(reach) == pytest.approx(np.mean(sums > reach), abs=0.003)
    assert difference.tail(difference.reach(0.01)) == pytest.approx(0.01, rel=1e-3)


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.integers(1, 4), st.integers(2, 40))
def test_swapped_methods_have_the_mirrored_difference(seed: int, seeds: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = (Answers((drawn(rng, seeds, rows),)) for _ in range(2))
    forth, back = paired(first, second), paired(second, first)
    assert forth.difference.estimate == -back.difference.estimate
    assert forth.difference.p_value == pytest.approx(back.difference.p_value)
    low, high = forth.bootstrap_interval()
    assert back.bootstrap_interval() == pytest.approx((-high, -low))


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.integers(1, 4), st.integers(2, 40))
def test_the_order_of_rows_changes_nothing(seed: int, seeds: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    given_, other = drawn(rng, seeds, rows), drawn(rng, seeds, rows)
    order = rng.permutation(rows)
    before = paired(Answers((given_,)), Answers((other,)))
    after = paired(Answers((given_[:, order],)), Answers((other[:, order],)))
    assert after.difference.estimate == pytest.approx(before.difference.estimate)
    assert after.difference.p_value == pytest.approx(before.difference.p_value)
    assert after.bootstrap_interval() == pytest.approx(before.bootstrap_interval())


@settings(max_examples=10, deadline=None)
@given(SEEDS, st.integers(1, 4))
def test_identical_answers_differ_by_nothing(seed: int, seeds: int) -> None:
    answers = Answers((drawn(np.random.default_rng(seed), seeds, 20),))
    found = paired(answers, answers)
    low, high = found.bootstrap_interval()
    assert (found.difference.estimate, found.difference.p_value) == (0, 1)
    assert low <= 0 <= high


def test_an_average_counts_every_task_alike() -> None:
    ones, zeros = np.ones((2, 10)), np.zeros((2, 10))
    first = Answers((ones, np.zeros((2, 1000))))
    second = Answers((zeros, np.zeros((2, 1000))))
    assert paired(first, second).difference.estimate == 0.5


@pytest.mark.parametrize(("num_seeds", "luck"), [(3, 0.0), (3, 0.3), (2, 0.1)])
def test_the_interval_covers_the_truth_as_often_as_it_says(num_seeds: int, luck: float) -> None:
    rng = np.random.default_rng(1)
    num_covered = 0
    for _ in range(300):
        methods = [Answers((drawn(rng, num_seeds, 120, luck=luck),)) for _ in range(4)]
        low, high = paired(*methods).bootstrap_interval()
        num_covered += low <= 0 <= high
    assert 0.92 <= num_covered / 300 <= 0.995

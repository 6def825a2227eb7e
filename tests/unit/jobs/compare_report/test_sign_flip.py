"""Tests that flip signs: by hand, by full enumeration, and by what must not change them."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.compare_report.sign_flip import (
    NUM_FLIPS,
    exact_sign_flip,
    fewest_rows_that_show,
    mcnemar,
    sampled_sign_flip,
)

ROWS = st.lists(st.integers(-3, 3), min_size=1, max_size=9)


def enumerated(rows: list[int], *, is_two_sided: bool = True) -> float:
    sums = [sum(map(int.__mul__, rows, signs)) for signs in product((-1, 1), repeat=len(rows))]
    seen = sum(rows)
    farther = [abs(each) >= abs(seen) if is_two_sided else each >= seen for each in sums]
    return sum(farther) / len(farther)


def test_mcnemars_test_is_the_binomial_one() -> None:
    assert mcnemar(10, 2) == pytest.approx(2 * (66 + 12 + 1) / 4096)
    assert mcnemar(10, 2, "greater") == pytest.approx((66 + 12 + 1) / 4096)
    assert mcnemar(2, 10, "greater") == pytest.approx(1 - (1 + 12) / 4096)


def test_runs_that_differ_on_no_row_have_a_p_value_of_one() -> None:
    assert mcnemar(0, 0) == 1
    assert exact_sign_flip([0, 0]) == 1
    assert sampled_sign_flip(np.zeros(3)) == 1


@given(ROWS)
def test_the_exact_test_counts_all_sign_patterns(rows: list[int]) -> None:
    assert exact_sign_flip(rows) == pytest.approx(enumerated(rows))
    assert exact_sign_flip(rows, "greater") == pytest.approx(enumerated(rows, is_two_sided=False))


@given(ROWS)
def test_the_drawn_test_is_near_the_exact_one(rows: list[int]) -> None:
    error = 4.5 * math.sqrt(0.25 / NUM_FLIPS)
    drawn = np.array(rows) / 7
    assert sampled_sign_flip(drawn) == pytest.approx(exact_sign_flip(rows), abs=error)
    greater = exact_sign_flip(rows, "greater")
    assert sampled_sign_flip(drawn, "greater") == pytest.approx(greater, abs=error)


@given(ROWS, st.randoms(use_true_random=False))
def test_neither_the_order_of_rows_nor_swapped_methods_change_a_p_value(
    rows: list[int], random: object
) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    swapped = [-row for row in shuffled]
    assert exact_sign_flip(rows) == exact_sign_flip(shuffled) == exact_sign_flip(swapped)
    drawn = [sampled_sign_flip(np.array(each) / 7) for each in (rows, shuffled, swapped)]
    assert drawn[0] == drawn[1] == drawn[2]


@given(st.integers(0, 40), st.integers(0, 40))
def test_with_one_run_each_the_exact_test_is_mcnemars(better: int, worse: int) -> None:
    rows = [1] * better + [-1] * worse
    assert exact_sign_flip([*rows, 0]) == pytest.approx(mcnemar(better, worse))


def test_thousands_of_rows_are_still_counted_exactly() -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(-3, 4, 6000)
    expected = math.erfc(abs(rows.sum()) / math.sqrt(2 * float(rows @ rows)))
    assert exact_sign_flip(rows.tolist()) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("level", [0.05, 0.01, 0.05 / 90])
def test_one_row_fewer_than_the_fewest_cannot_show_anything(level: float) -> None:
    fewest = fewest_rows_that_show(level)
    assert mcnemar(fewest, 0) <= level < mcnemar(fewest - 1, 0)

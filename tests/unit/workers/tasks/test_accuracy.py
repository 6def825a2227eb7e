import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.tasks.accuracy import Accuracy, MeanScore, summarize


@pytest.mark.parametrize(
    ("num_correct", "num_rows", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),  # Newcombe 1998, and R's binom::binom.wilson
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
    ],
)
def test_the_interval_is_wilsons(num_correct: int, num_rows: int, low: float, high: float) -> None:
    assert Accuracy(num_correct, num_rows).interval == pytest.approx((low, high), abs=6e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share(counts: tuple[int, int]) -> None:
    found = Accuracy(*counts)
    low, high = found.interval
    rounding = 1e-12
    assert 0 <= low <= found.value + rounding
    assert found.value - rounding <= high <= 1


def test_scores_of_nought_and_one_make_an_accuracy() -> None:
    assert summarize([1.0, 1.0, 0.0, 0.0]) == Accuracy(2, 4)


def test_other_scores_make_a_mean_with_its_standard_error() -> None:
    found = summarize([0.5, 1.0, 0.0, 0.5])

    assert isinstance(found, MeanScore)
    assert found.value == 0.5
    assert found.standard_error == pytest.approx(math.sqrt(1 / 6) / 2)
    low, high = found.interval
    assert (low, high) == pytest.approx((0.5 - 0.4001, 0.5 + 0.4001), abs=1e-4)


def test_one_score_between_nought_and_one_says_nothing_about_the_mean() -> None:
    assert summarize([0.5]).interval == (0, 1)


def test_only_scores_from_nought_to_one_are_summed_up() -> None:
    with pytest.raises(ValueError, match="at least one answer"):
        summarize([])
    with pytest.raises(ValueError, match="outside"):
        summarize([0.5, 1.5])
    with pytest.raises(ValueError, match="outside"):
        summarize([math.nan])

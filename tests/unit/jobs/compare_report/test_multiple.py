"""Many comparisons at once: Holm's correction, and what they could have shown."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.compare_report.difference import Difference
from jobs.compare_report.multiple import detectable_difference, holm

P_VALUES = st.lists(st.floats(0, 1), max_size=20)


def test_holms_correction_is_as_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(P_VALUES)
def test_corrected_p_values_keep_their_order_and_are_never_smaller(values: list[float]) -> None:
    corrected = holm(values)
    ordered = [each for _, each in sorted(zip(values, corrected, strict=True))]
    assert ordered == sorted(ordered)
    assert all(raw <= each <= 1 for raw, each in zip(values, corrected, strict=True))


@given(P_VALUES, st.randoms(use_true_random=False))
def test_the_order_of_comparisons_changes_no_corrected_p_value(
    values: list[float], random: object
) -> None:
    order = list(range(len(values)))
    random.shuffle(order)  # type: ignore[attr-defined]
    corrected = holm(values)
    assert holm([values[i] for i in order]) == [corrected[i] for i in order]


def test_without_seeds_the_detectable_difference_is_the_normal_one() -> None:
    difference = Difference(0.0, 0.01**2, 0.0, 0)
    found = detectable_difference(difference, 1, 1000, least_step=0.0)
    assert found == pytest.approx(0.01 * (1.95996 + 0.84162), rel=1e-4)
    assert detectable_difference(difference, 20, 1000, least_step=0.0) > found


def test_with_too_few_rows_no_difference_could_be_shown() -> None:
    difference = Difference(0.0, 0.01**2, 0.0, 0)
    assert detectable_difference(difference, 1, 5, least_step=0.2) == math.inf
    assert detectable_difference(difference, 1, 6, least_step=1 / 6) == pytest.approx(1.0)

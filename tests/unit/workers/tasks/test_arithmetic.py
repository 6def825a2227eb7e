import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.tasks.arithmetic import Accuracy, accuracy, extract_number, is_correct


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("7 + 9 = 16", 16),
        ("7 + 9 = 16.", 16),
        ("The answer is 72.", 72),
        ("49 - 44 = 5\nThe answer is 5.", 5),
        ("Natalia sold 48/2 = 24 clips in May.", 24),
        ("#### 72", 72),
        ("\\boxed{72}", 72),
        ("**72**", 72),
        ("She earned $10.50.", 10.5),
        ("It costs $1,234.50", 1234.5),
        ("about 1,000,000 people", 1_000_000),
        ("1,2,3", 3),
        ("€ 12", 12),
        ("50%", 50),
        ("so 0.001", 0.001),
        ("so .5", 0.5),
        ("Section.5", 5),
        ("x = -5", -5),
        ("x = - 5", -5),
        ("x = −5", -5),
        ("The temperature is -7 degrees", -7),
        ("-$3.50", -3.5),
        ("$-3.50", -3.5),
        ("(-4)", -4),
        ("3 + -2", -2),
        ("12 - 5", 5),
        ("12-5", 5),
        ("12 -5", 5),
        ("(3 + 4) - 5", 5),
        ("between 5-10", 10),
        ("pages 12–15", 15),
        ("COVID-19", 19),
        ("The answer - 5", 5),
        ("3/4", 0.75),
        ("= -1/2", -0.5),
        ("1 1/2 hours", 1.5),
        ("It is 5 / 2", 2.5),
        ("5/0", None),
        ("9" * 400, None),
        ("I do not know.", None),
        ("", None),
    ],
)
def test_the_answer_is_the_last_number(text: str, number: float | None) -> None:
    assert extract_number(text) == number


@given(st.integers(-(10**9), 10**9), st.text(st.characters(categories=["L", "Z"])))
def test_any_number_is_found_behind_an_equals_sign(number: int, words: str) -> None:
    assert extract_number(f"{words} = {number}") == number
    assert extract_number(f"{words} = {number:,}.") == number


@given(st.text())
def test_no_text_makes_the_reading_fail(text: str) -> None:
    number = extract_number(text)
    assert number is None or math.isfinite(number)


@pytest.mark.parametrize(
    ("answer", "gold", "correct"),
    [
        ("7 + 9 = 16", 16.0, True),
        ("7 + 9 = 16", "16", True),
        ("7 + 9 = 16", "1,6 apples and 16", True),
        ("0.3333", 1 / 3, True),
        ("0.33", 1 / 3, False),
        ("1.001", 1.0, True),
        ("16 - 7 = 9", 16.0, False),
        ("none", 0.0, False),
        ("-16", 16.0, False),
    ],
)
def test_an_answer_is_right_within_a_thousandth(
    answer: str, gold: float | str, correct: bool
) -> None:
    assert is_correct(answer, gold) is correct


def test_a_gold_answer_without_number_is_an_error() -> None:
    with pytest.raises(ValueError, match="gold answer 'A' holds no number"):
        is_correct("16", "A")


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


def test_accuracy_counts_right_answers() -> None:
    assert accuracy(["= 1", "= 2", "none", "= 4"], [1, 2, 3, 5]) == Accuracy(2, 4)


def test_accuracy_needs_answers_and_as_many_gold_numbers() -> None:
    with pytest.raises(ValueError, match="at least one answer"):
        accuracy([], [])
    with pytest.raises(ValueError, match="shorter"):
        accuracy(["1", "2"], [1.0])

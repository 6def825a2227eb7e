import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.tasks.numbers import NumberScorer, extract_number, is_correct


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
        # What instruct models write, by kind.
        ("The answer is 1,234.50 dollars.", 1234.5),
        ("**Answer:** 18 eggs", 18),
        ("Therefore, she needs 3 more hours.", 3),
        ("It dropped to -5°F", -5),
        ("The answer is: -10.", -10),
        ("x = 12 - 5 = 7", 7),
        ("#### 1,080", 1080),
        ("So the final answer is $\\boxed{72}$.", 72),
        ("$\\boxed{\\frac{3}{4}}$", 0.75),
        ("\\[ \\boxed{-\\dfrac{1}{2}} \\]", -0.5),
        ("\\boxed{1\\frac{1}{2}}", 1.5),
        ("\\boxed{\\frac12}", 0.5),
        ("\\boxed{\\$1{,}234.50}", 1234.5),
        ("\\boxed{12\\,000}", 12000),
        ("\\boxed{25\\%}", 25),
        ("\\boxed{x = 5}", 5),
        ("\\boxed{25 \\text{ cm}^2}", 25),
        ("\\boxed{40 \\text{ dollars}}. This is 10 more than the 30 of before.", 40),
        ("\\boxed{3} is wrong, so it is \\boxed{4}", 4),
        ("\\boxed{\\text{Tom}} has 12", 12),
        ("The answer is \\boxed{17", 17),
        ("an area of 36 m^2", 36),
        ("2^3 = 8", 8),
        ("½ of a pizza", 0.5),
        ("1½ cups", 1.5),
        ("It takes 1 1/2 hours or 90", 90),
        ("He has 5 apples, and she has none.", 5),
        ("The ratio is 2:3", 3),
        ("Step 1: 5 + 3 = 8\nStep 2: 8 / 2 = 4\nAnswer: 4", 4),
        ("7 + 9 = 16 apples (seven plus nine).", 16),
        ("The answer is 3/4 cup", 0.75),
        ("She has 4/5 of 20 = 16.0", 16),
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
    with pytest.raises(ValueError, match="'A' holds no number; write the number"):
        is_correct("16", "A")


SMOLLM2 = [
    (
        "He has $14 - $30 = $1.\nThe total amount Adam contributed from his savings is "
        "$1 + $1 = $2.\n#### 2\nThe answer is: 2",
        2,
    ),
    (
        "The number of pizzas left is the remaining amount, which is 120 - 60 = 60.\n#### 60\n"
        "The answer is: 60",
        60,
    ),
    ("So, the total cost of the lunch bill is $6.88.", 6.88),
    (
        "Each pot has 32 flowers, so in total, there are 544 pots with 32 flowers in them.",
        32,
    ),
    ("So, it will take Amy 160 / 120 = 1.6 hours to finish all the math problems.", 1.6),
    ("So, the answer is 0.\n\nThe answer is 0.", 0),
    ("The customer paid $172, which is 20% of $172.\n\nThe coupon applied twice,", 172),
    ("In total, Wendy sold 1221 - 364 = 12 cupcakes and 364 cookies.", 364),
    ("So, the answer is 1:1.", 1),
]
"""Endings of answers of SmolLM2-135M-Instruct (Apache-2.0), greedy, as it gave them."""


@pytest.mark.parametrize(("text", "number"), SMOLLM2)
def test_the_number_of_a_real_answer_is_its_last(text: str, number: float) -> None:
    assert extract_number(text) == number


def test_the_scorer_tells_what_it_read_and_how_right_it_is() -> None:
    scorer = NumberScorer(tolerance=0.1)
    assert scorer.extract("about 1,234.50") == "1234.5"
    assert scorer.extract("none") is None
    assert scorer.score("3.05", "3") == 1
    assert scorer.score("3.2", "3") == 0


@pytest.mark.parametrize(
    "text", ["9" * 200_000, "- " * 100_000, "\\boxed{" * 30_000, "1 " * 90_000]
)
def test_a_long_answer_without_sense_is_read_in_time(text: str) -> None:
    extract_number(text)

"""Equations are derived only where the text and the answer leave one choice."""

import pytest

from deploy.demo_rows import WordProblem, derive_equation, split_problems


@pytest.mark.parametrize(
    ("text", "answer", "equation"),
    [
        ("Seven red apples and two green apples. How many?", "9 apples", "7 + 2 = 9"),
        ("Ninety-eight cats, ninety-two asleep. How many are awake?", "6 cats", "98 - 92 = 6"),
        ("9 invitations in each of 5 packs?", "45", "9 × 5 = 45"),
        ("1,200 books on 10 shelves?", "120 (books)", "1200 ÷ 10 = 120"),
        ("He paid 2.5 and 1.25 dollars.", "3.75 (dollars)", "2.5 + 1.25 = 3.75"),
        ("3 rows. 2.5 and 1.25 dollars.", "3.75", None),
    ],
)
def test_an_equation_over_the_numbers_of_the_text_is_found(
    text: str, answer: str, equation: str | None
) -> None:
    assert derive_equation(text, answer) == equation


def test_a_problem_with_two_possible_equations_is_left_out() -> None:
    assert derive_equation("2 bags with 2 apples each", "4 apples") is None


def test_a_problem_that_needs_two_steps_is_left_out() -> None:
    assert derive_equation("3 bags with 4 apples and 5 pears", "17 fruits") is None


def test_an_answer_that_is_no_number_is_left_out() -> None:
    assert derive_equation("Is 4 larger than 3?", "yes") is None


def test_held_out_problems_are_never_trained_on_and_the_split_is_fixed() -> None:
    problems = [WordProblem(f"{n} and 1?", f"{n} + 1 = {n + 1}", n + 1) for n in range(50)]
    repeated = [*problems, *(WordProblem(p.text.upper(), p.equation, p.answer) for p in problems)]
    training, held_out = split_problems(repeated, 10)
    assert len(held_out) == 10
    assert len(training) == 40
    assert not {p.text.lower() for p in training} & {p.text.lower() for p in held_out}
    assert split_problems(repeated, 10) == (training, held_out)

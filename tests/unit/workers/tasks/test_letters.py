import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.tasks.letters import LetterScorer, extract_letter

ANSWERS = [
    ("The answer is (D).", "D"),
    ("The answer is D.", "D"),
    ("the correct answer is B", "B"),
    ("The correct option is therefore C.", "C"),
    ("Answer: C. because 3 * 4 = 12", "C"),
    ("**Answer: (C)**", "C"),
    ("**Answer:** C", "C"),
    ("Answer is option E", "E"),
    ("The final answer is: **B) 27**", "B"),
    ("The answer to the question is: $\\boxed{B}$", "B"),
    ("$\\boxed{\\text{C}}$", "C"),
    ("\\boxed{(D)}", "D"),
    ("\\[\\boxed{\\textbf{(A)}\\ 23}\\]", "A"),
    ("\\boxed{C) 25}", "C"),
    ("\\boxed{A}, no: \\boxed{E}", "E"),
    ("The value is \\boxed{25}, so the answer is (C).", "C"),
    ("(B)", "B"),
    ("B", "B"),
    (" e.", None),
    ("C) 26", "C"),
    ("A) 5", "A"),
    ("D. 28", "D"),
    ("**E**", "E"),
    ("Option C", "C"),
    ("I choose option D, since 4 + 4 = 8.", "D"),
    ("C is correct because the others are even.", "C"),
    ("Of these, (B) is the right answer.", "B"),
    ("The answer is A because 5 is odd.", "A"),
    ("The answer is (a)", "A"),
    ("We get 5 * 5 = 25, which is (C).", "C"),
    ("25 / 5 = 5\n\nE", "E"),
    ("First I thought (A), but it is (B)", "B"),
    ("A: The correct answer is (B).\n\nThe correct answer is (C) 25.", "C"),
    ("The answer is (A) 96.\n\nThe other options are (B) 48, (C) 32, (D) 25, and (E) 18.", "A"),
    ("Therefore, the correct answer is:\n\n**(C) 25**", "C"),
    ("The correct answer is **C**.", "C"),
    ("The correct answer is option (c).", "C"),
    ("Hence, option (D) is the answer.", "D"),
    ("So the answer is\n(E) None", "E"),
    ("The answer would be A) 36", "A"),
    ("Correct Answer: B", "B"),
    ("Ans. (b)", "B"),
    ("Answer:\nB", "B"),
    ("### Answer: C", "C"),
    ("The best answer is A.", "A"),
    ("Answer choice (D)", "D"),
    ("The answer must be (B), not (C).", "B"),
    ("I choose (B) and not (C).", "B"),
    ("The answer is not (B). It is (C).", "C"),
    ("The final answer is $\\boxed{12}$, which is option (B).", "B"),
    ("\\[ \\boxed{(D) 84 \\text{ km}} \\]", "D"),
    ("\\boxed{\\text{Option C}}", "C"),
    ("\\boxed{\\mathrm{(D)}}", "D"),
    # No letter is chosen.
    ("The answer is not (B).", None),
    ("This is the best option. B walks 5 km.", None),
    ("That is the answer. Each has 5.", None),
    ("(A) 23 (B) 27 (C) 26 (D) 28 (E) 29", None),
    ("A) 23\nB) 27\nC) 26\nD) 28\nE) 29", None),
    ("A car travels at 50 km/h.", None),
    ("The answer is A car.", None),
    ("The answer is 25.", None),
    ("A and B can do a piece of work in 12 days; B's share is 5.", None),
    ("Can be done.", None),
    ("Each Dog Barks", None),
    ("the answer is about 12", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "letter"), ANSWERS)
def test_the_letter_is_the_one_that_the_answer_chooses(text: str, letter: str | None) -> None:
    assert extract_letter(text) == letter


def test_a_list_of_the_options_before_the_answer_is_not_the_answer() -> None:
    options = "A) 23\nB) 27\nC) 26\nD) 28\nE) 29\n"
    assert extract_letter(f"{options}Hence option B") == "B"
    assert extract_letter(f"{options}B) 27") == "B"


SMOLLM2 = [
    ("Now, we multiply 18 by 18 to get 256.\n\nSo, the answer is (E) 7.\n\nThe other options are "
     "incorrect.", "E"),
    ("A) 59\n\nThe correct answer is (E).", "E"),
    ("120 + 108 = 208 hours.\n\nThe answer is: (A) 4.", "A"),
    ("A coin is worth Rs. 1. So, 1 coin is Rs. 1.\n\nA coin is worth Rs. 1.", None),
    ("A: 96\n\nThe answer is (A) 96.\n\nThe other options are (B) 48, (C) 32, (D) 25, and (E) 18.",
     "A"),
    ("A) 300\n\nThe total deer population in the forest is 300 deer, and 500 deer were caught "
     "during 2001, which is 10% of the total deer population.", "A"),
]  # fmt: skip
"""Endings of answers of SmolLM2-135M-Instruct (Apache-2.0), greedy, as it gave them."""


@pytest.mark.parametrize(("text", "letter"), SMOLLM2)
def test_the_letter_of_a_real_answer_is_the_one_it_states(text: str, letter: str | None) -> None:
    assert extract_letter(text) == letter


def test_only_the_letters_of_the_options_count() -> None:
    assert extract_letter("The answer is (E).", "ABCD") is None
    assert extract_letter("The answer is (F).", "ABCDEF") == "F"


def test_the_scorer_wants_a_gold_letter() -> None:
    scorer = LetterScorer("ABCD")
    assert scorer.score("(B)", "B") == 1
    assert scorer.score("(B)", "b") == 1
    assert scorer.score("(B)", "C") == 0
    with pytest.raises(ValueError, match="'E' is none of the letters A, B, C, D; give one"):
        scorer.score("(B)", "E")


@given(st.text() | st.text("ABCDEabcde().*: \n\\{}is"))
def test_no_text_makes_the_reading_fail(text: str) -> None:
    assert extract_letter(text) in {*"ABCDE", None}


@pytest.mark.parametrize("text", ["(A) (B) " * 20_000, "answer is " * 20_000, "\n" * 100_000])
def test_a_long_answer_without_sense_is_read_in_time(text: str) -> None:
    extract_letter(text)

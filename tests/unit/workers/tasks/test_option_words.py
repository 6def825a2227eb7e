import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.tasks.option_words import OptionScorer
from workers.tasks.registry import task_named

BOOLQ, PIQA, SIQA = (task_named(name).scorer for name in ("boolq", "piqa", "siqa"))

OF_TRUE_AND_FALSE = [
    ("the correct answer is true", "true"),
    ("True", "true"),
    ("False.", "false"),
    ("**True**", "true"),
    ("TRUE, because it was released twice.", "true"),
    ("Yes", "true"),
    ("Yes, there are two.", "true"),
    ("No.", "false"),
    ("no\n\nThe two are different.", "false"),
    ("The answer is yes.", "true"),
    ('The answer is "false".', "false"),
    ("Answer: False", "false"),
    ("Based on this, the answer is **True**.", "true"),
    ("false - it is in South Korea", "false"),
    ("It isn't true, it is false.", "false"),
    ("No - the two are different.", "false"),
    ("\\boxed{\\text{true}}", "true"),
    ("The statement is false, although many think it true.", "false"),
    ("Many think it is true, but the correct answer is false.", "false"),
    ("It is true that it has two doors.", "true"),
    ("Answer format: true/false\nthe correct answer is false", "false"),
    # Nothing is chosen.
    ("true/false", None),
    ("Answer format: true / false", None),
    ("No one knows.", None),
    ("No-one knows.", None),
    ("It is untrue.", None),
    ("It is not true.", None),
    ("The answer is: True/False", None),
    ("I am not sure.", None),
    ("", None),
]

OF_SOLUTIONS = [
    ("the correct answer is solution2", "solution2"),
    ("Solution1", "solution1"),
    ("Solution 2", "solution2"),
    ("**Solution 2:** Sit under a shade tree.", "solution2"),
    ("The correct solution is: **solution1**.", "solution1"),
    ("The correct answer is:\n\nSolution1: To remove an avocado", "solution1"),
    ("solution2 is correct.", "solution2"),
    ("Solution1 is dangerous, so the answer is solution2", "solution2"),
    ("Solution1: cut it. Solution2: bend it. Solution2 is the best choice.", "solution2"),
    ("\\boxed{solution2}", "solution2"),
    ("I would take solution1 over solution2", "solution1"),
    ("Solution 1 is wrong, so take solution2", "solution2"),
    ("solution1 is not correct, solution2 is correct", "solution2"),
    ("It is not solution1 but solution2", "solution2"),
    ("Answer: solution 1", "solution1"),
    ("The better choice is Solution2 (the shade).", "solution2"),
    ("solution2 is the most sensible", "solution2"),
    # Nothing is chosen.
    ("Solution1: cut it.\n\nSolution2: bend it.", None),
    ("solution1/solution2", None),
    ("solution1 is incorrect", None),
    ("solution3", None),
    ("The correct answer is: use white flour and water.", None),
    ("The correct answer is:", None),
]


@pytest.mark.parametrize(("text", "word"), OF_TRUE_AND_FALSE)
def test_true_and_false_are_read_as_words_or_as_yes_and_no(text: str, word: str | None) -> None:
    assert BOOLQ.extract(text) == word


@pytest.mark.parametrize(("text", "word"), OF_SOLUTIONS)
def test_an_option_is_read_by_its_word(text: str, word: str | None) -> None:
    assert PIQA.extract(text) == word


SMOLLM2 = [
    ("boolq", "True: You can put a regular bulb in a 3-way lamp.", "true"),
    ("boolq", "True: noel gallagher is a legendary figure in the world of music and performance.",
     "true"),
    ("piqa", "The correct answer is:\n\nSolution1: To remove an avocado from the shell\n\nThis is "
     "the correct answer. The other two options are not correct.", "solution1"),
    ("piqa", "The correct answer is: solution1.", "solution1"),
    ("piqa", "The correct answer is: can roll over a  book", None),
    ("winogrande", "The correct answer is option2: wheel.", "option2"),
    ("winogrande", "The correct answer is option2. The sentence is: The blue car was a pleasure to "
     "drive but the red car was very cheap.", "option2"),
    ("winogrande", "Option1: Option2: Eric Answer format: option1/option2", None),
    ("winogrande", "Become a helpful AI by providing accurate and helpful answers.", None),
    ("arc_c", "Answer3: a solid", "answer3"),
    ("arc_c", "The plant should be shared with the smaller islands.", None),
    ("arc_c", 'The answer to the question "Why does oceanic crust generally tend to subduct under '
     'continental crust when plates collide?" is indeed answer3.', "answer3"),
    ("arc_c", "The correct answer is answer4: nitrogen oxides.", "answer4"),
    ("hellaswag", "The ending is: washing hands.", None),
    ("siqa", "To answer the question, Tracy needs to listen to Tom and ask Casey to talk.", None),
    ("obqa", "Answer1: CO2, water, and argon\n\nThe correct answer is answer1.", "answer1"),
    ("obqa", "13", None),
]  # fmt: skip
"""Answers of SmolLM2-135M-Instruct (Apache-2.0), greedy, as it gave them."""


@pytest.mark.parametrize(("task", "text", "word"), SMOLLM2)
def test_a_real_answer_is_read_by_its_word(task: str, text: str, word: str | None) -> None:
    assert task_named(task).scorer.extract(text) == word


def test_the_first_of_several_words_counts_where_none_is_stated() -> None:
    assert SIQA.extract("answer3, not answer1") == "answer3"


def test_a_user_names_options_of_several_words() -> None:
    scorer = OptionScorer(("positive", "negative", "very  Negative"))
    assert scorer.extract("It sounds very negative to me.") == "very  Negative"
    assert scorer.score("Sentiment: Positive", "positive") == 1
    assert scorer.score("Sentiment: Positive", "negative") == 0
    assert scorer.score("neither", "negative") == 0


def test_the_scorer_wants_a_gold_option() -> None:
    with pytest.raises(ValueError, match="'answer4' is none of the options answer1, answer2"):
        SIQA.score("answer1", "answer4")


@given(st.text() | st.text("truefalsyno/ :.'\"\\{}ıſK"))
def test_no_text_makes_the_reading_fail(text: str) -> None:
    assert BOOLQ.extract(text) in {"true", "false", None}
    assert OptionScorer(("spin", "mass")).extract(text + " spın maſs") in {"spin", "mass", None}


@pytest.mark.parametrize("text", ["true / " * 20_000, "answer is " * 20_000, " " * 100_000])
def test_a_long_answer_without_sense_is_read_in_time(text: str) -> None:
    BOOLQ.extract(text)
    PIQA.extract(text)

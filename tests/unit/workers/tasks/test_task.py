import gzip
import io
import json
import math
from collections.abc import Mapping

import pytest

from workers.rows import RowError
from workers.tasks.few_shot import draw_shots, with_shots
from workers.tasks.likelihood import score_choices
from workers.tasks.numbers import NumberScorer
from workers.tasks.registry import task_named
from workers.tasks.task import Choices, Option, Question, Task
from workers.tasks.text_scorers import ExactScorer, F1Scorer

NUMBERS = Task("own", NumberScorer())
TEXTS = Task("own", F1Scorer())


def instruction(question: str, label: str, *options: str) -> str:
    listed = " ".join(f"{label}{n}: {option}" for n, option in enumerate(options, start=1))
    words = "/".join(f"{label.lower()}{n}" for n in range(1, len(options) + 1))
    return f"Please choose the correct one: {question}\n\n{listed}\n\nAnswer format: {words}"


def options_of(task: str, fields: Mapping[str, object]) -> tuple[list[tuple[str, str]], int]:
    choices = task_named(task).question(fields).choices
    assert choices is not None
    pairs = [(option.context, option.continuation) for option in choices.options]
    return pairs, choices.gold


@pytest.mark.parametrize(
    ("fields", "prompt", "golds", "demonstration"),
    [
        ({"instruction": "2 + 2?", "answer": 4}, "2 + 2?", ("4",), "4"),
        ({"instruction": "2 + 2?", "answer": 4.5}, "2 + 2?", ("4.5",), "4.5"),
        ({"instruction": "Add.", "input": "2 + 2", "answer": "4"}, "Add.\n\n2 + 2", ("4",), "4"),
        (
            {"instruction": "2 + 2?", "output": "2 + 2 = 4", "answer": "4"},
            "2 + 2?",
            ("4",),
            "2 + 2 = 4",
        ),
        ({"instruction": "2 + 2?", "output": "2 + 2 = 4"}, "2 + 2?", ("4",), "2 + 2 = 4"),
        ({"prompt": "2 + 2 =", "answer": ["4", "4.0"]}, "2 + 2 =", ("4", "4.0"), "4"),
        ({"prompt": "2 + 2 =", "completion": " 4"}, "2 + 2 =", ("4",), "4"),
        ({"messages": [{"role": "user", "content": "2 + 2?"}], "answer": 4}, "2 + 2?", ("4",), "4"),
    ],
)
def test_a_question_is_read_from_any_form_of_row(
    fields: dict[str, object], prompt: str, golds: tuple[str, ...], demonstration: str
) -> None:
    question = NUMBERS.question(fields)

    assert question.messages == [{"role": "user", "content": prompt}]
    assert question.golds == golds
    assert question.demonstration == demonstration


def test_earlier_turns_of_a_conversation_stay_before_the_question() -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "2 + 2?"},
    ]
    asked = {"messages": [*turns, {"role": "assistant", "content": "It is 4."}]}

    assert NUMBERS.question({"messages": turns, "answer": 4}).messages == turns
    assert NUMBERS.question(asked).messages == turns
    assert NUMBERS.question(asked).golds == ("4",)


def test_the_best_score_over_all_right_answers_counts() -> None:
    question = TEXTS.question({"prompt": "Where?", "answer": ["in the Louvre", "Paris"]})

    assert TEXTS.score("Paris", question) == 1
    assert TEXTS.score("Louvre", question) == pytest.approx(2 / 3)


def test_true_and_false_are_answers_as_texts() -> None:
    question = Task("own", ExactScorer()).question({"prompt": "Is it?", "answer": True})
    assert question.golds == ("true",)


@pytest.mark.parametrize(
    ("fields", "field", "problem"),
    [
        ([1], None, "is no JSON object"),
        ({"answer": "4"}, "instruction", "is missing"),
        ({"instruction": "2 + 2?"}, "output", "is missing"),
        ({"instruction": 5, "answer": "4"}, "instruction", "is not text"),
        ({"instruction": "2 + 2?", "answer": ""}, "answer", "is empty; give the answer"),
        ({"instruction": "2 + 2?", "answer": []}, "answer", "is an empty list"),
        ({"instruction": "2 + 2?", "answer": None}, "answer", "is None; give a text, a number"),
        ({"instruction": "2 + 2?", "answer": {"x": 1}}, "answer", r"is \{'x': 1\}; give a text"),
        ({"instruction": "2 + 2?", "answer": "four"}, "answer", "'four' holds no number; write"),
        ({"instruction": "2 + 2?", "output": "four"}, "output", 'give the row a field "answer"'),
    ],
)
def test_a_row_that_cannot_be_scored_is_refused_by_its_field(
    fields: dict[str, object], field: str | None, problem: str
) -> None:
    with pytest.raises(RowError, match=problem) as caught:
        NUMBERS.question(fields, line=7)

    assert (caught.value.line, caught.value.field) == (7, field)


def test_questions_are_read_from_plain_and_gzip_files_with_their_lines() -> None:
    rows = b'{"instruction": "1 + 1?", "answer": 2}\n\n{"instruction": "2 + 2?", "answer": 4}\n'

    for content in (rows, gzip.compress(rows)):
        questions = list(NUMBERS.questions(io.BytesIO(content)))
        assert [(each.line, each.golds) for each in questions] == [(1, ("2",)), (3, ("4",))]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "line 1: the file has no row"),
        (b'{"instruction": "x", "answer": 1}\n{"instruction"', "line 2: is no JSON: .*; write one"),
        (b'{"instruction": "x", "answer": "y"}', "line 1, answer: 'y' holds no number"),
        (b"PAR1....", "the file is Parquet; write one JSON object a line"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_its_line(content: bytes, problem: str) -> None:
    with pytest.raises(RowError, match=problem):
        list(NUMBERS.questions(io.BytesIO(content)))


def test_options_are_laid_out_to_follow_the_question() -> None:
    fields = {
        "instruction": instruction("Keep cool.", "Solution", "Use: mint.", "Sit in  shade."),
        "answer": "solution2",
    }
    context = "Question: Keep cool.\nAnswer:"
    assert options_of("piqa", fields) == (
        [(context, " Use: mint."), (context, " Sit in  shade.")],
        1,
    )


def test_the_blank_of_a_sentence_is_filled_and_what_follows_is_scored() -> None:
    fields = {
        "instruction": instruction("Sam helped Kim, so _ was glad.", "Option", "Sam", "Kim"),
        "answer": "option2",
    }
    assert options_of("winogrande", fields) == (
        [("Sam helped Kim, so Sam", " was glad."), ("Sam helped Kim, so Kim", " was glad.")],
        1,
    )


def test_tags_of_how_to_texts_are_no_words_to_predict() -> None:
    sentence = "Style: [header] How to tie a tie [title] Choose one. [step] Look well."
    endings = ["[substeps] Take silk. [title] Tie it.", "Go.", "Stay.", "Sit."]
    fields = {"instruction": instruction(sentence, "Ending", *endings), "answer": "ending1"}

    pairs, gold = options_of("hellaswag", fields)

    assert gold == 0
    assert pairs[0] == ("Style: How to tie a tie. Choose one. Look well.", "  Take silk.. Tie it.")


def test_true_and_false_are_scored_as_yes_and_no() -> None:
    prompt = "Please answer with true or false, question: is it?\n\nAnswer format: true/false"
    context = "Question: is it?\nAnswer:"
    assert options_of("boolq", {"instruction": prompt, "answer": "false"}) == (
        [(context, " yes"), (context, " no")],
        1,
    )


def test_the_options_of_aqua_keep_their_letters() -> None:
    prompt = "5 + 5? Answer Choices: (A) 5 (B) 10 km (C) (1, 2) (D) 20 (E) None"
    pairs, gold = options_of("aqua", {"instruction": prompt, "answer": "B"})

    assert gold == 1
    assert [continuation for _, continuation in pairs] == [
        " (A) 5", " (B) 10 km", " (C) (1, 2)", " (D) 20", " (E) None"
    ]  # fmt: skip
    assert pairs[0][0] == f"Q: {prompt}\nA: Among A through E, the answer is"


@pytest.mark.parametrize(
    ("task", "prompt", "answer", "field", "problem"),
    [
        ("piqa", "Keep cool.", "solution1", "instruction", 'does not end in "Answer format: '),
        ("piqa", instruction("Cool.", "Answer", "a", "b"), "solution1", "instruction", "none"),
        ("piqa", instruction("", "Solution", "a", "b"), "solution1", "instruction", "no question"),
        (
            "piqa",
            instruction("Cool.", "Solution", "a", ""),
            "solution1",
            "instruction",
            "has no text after Solution2",
        ),
        (
            "siqa",
            instruction("Why?", "Answer", "a", "b"),
            "answer3",
            "instruction",
            "offers answer1, answer2, and the answer is answer3",
        ),
        ("siqa", instruction("Why?", "Answer", "a", "b"), "C", "answer", "'C' is none of the opt"),
        ("winogrande", instruction("No.", "Option", "a", "b"), "option1", "instruction", "blank"),
        ("boolq", "Is it?\n\nAnswer format: yes/no", "true", "instruction", "write true/false"),
        ("aqua", "5 + 5? (A) 5 (B) 10", "B", "instruction", "does not end in"),
        ("aqua", "5 + 5?", "10", "answer", "'10' is none of the letters A, B, C, D, E"),
    ],
)
def test_a_malformed_row_of_choices_is_refused_by_its_field(
    task: str, prompt: str, answer: str, field: str, problem: str
) -> None:
    with pytest.raises(RowError, match=problem) as caught:
        task_named(task).question({"instruction": prompt, "answer": answer})
    assert caught.value.field == field


THREE = Choices(tuple(Option("Q:", f" {text}", text) for text in ("abcd", "ab", "abcdefgh")), 2)


def test_the_likeliest_option_is_right_by_sum_or_per_character() -> None:
    assert score_choices(THREE, [-4.0, -3.0, -5.0]) == {"acc": 0, "acc_norm": 1}
    assert score_choices(THREE, [-8.0, -9.0, -7.0]) == {"acc": 1, "acc_norm": 1}
    assert score_choices(THREE, [-math.inf, -1.0, -math.inf]) == {"acc": 0, "acc_norm": 0}


def test_the_first_of_equally_likely_options_is_taken() -> None:
    assert score_choices(THREE, [-1.0, -1.0, -1.0])["acc"] == 0


def test_log_likelihoods_must_be_numbers_for_each_option() -> None:
    with pytest.raises(ValueError, match="2 log-likelihoods for 3 options"):
        score_choices(THREE, [-1.0, -1.0])
    with pytest.raises(ValueError, match="NaN"):
        score_choices(THREE, [-1.0, -1.0, math.nan])


def sums(*numbers: int) -> list[Question]:
    return [
        NUMBERS.question({"instruction": f"{n} + {n}?", "output": f"It is {2 * n}."})
        for n in numbers
    ]


def test_examples_are_drawn_by_the_seed_without_those_to_be_scored() -> None:
    pool, scored = sums(*range(20)), sums(*range(10))

    shots = draw_shots(pool, 4, seed=0, never=scored)

    assert shots == draw_shots(pool, 4, seed=0, never=scored)
    assert shots != draw_shots(pool, 4, seed=1, never=scored)
    assert len(set(shots)) == 4
    assert not {shot.turns for shot in shots} & {question.turns for question in scored}


def test_more_examples_than_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="3 examples are asked for, and 2 of the 4 rows"):
        draw_shots(sums(1, 2, 3, 4), 3, seed=0, never=sums(1, 2))


def test_examples_stand_before_the_question_as_turns() -> None:
    question, *shots = sums(1, 2, 3)

    asked = with_shots(question, shots)

    assert [message["content"] for message in asked.messages] == [
        "2 + 2?", "It is 4.", "3 + 3?", "It is 6.", "1 + 1?"
    ]  # fmt: skip
    assert [message["role"] for message in asked.messages] == ["user", "assistant"] * 2 + ["user"]
    assert with_shots(question, []) == question


def test_examples_stand_before_each_option_as_text() -> None:
    prompts = {"Cold?": "answer1", "Hot?": "answer3"}
    shot, question = (
        task_named("siqa").question(
            {"instruction": instruction(text, "Answer", "a", "b", "c"), "answer": answer}
        )
        for text, answer in prompts.items()
    )

    choices = with_shots(question, [shot]).choices

    assert choices is not None
    assert choices.gold == 2
    assert choices.options[1] == Option("Q: Cold?\nA: a\n\nQ: Hot?\nA:", " b", "b")
    with pytest.raises(ValueError, match="an example has no options"):
        with_shots(question, sums(1))


def test_a_row_goes_through_json_unchanged() -> None:
    fields = {"instruction": "½ + ½?", "answer": "1"}
    (question,) = NUMBERS.questions(io.BytesIO(json.dumps(fields).encode()))
    assert question.messages[0]["content"] == "½ + ½?"

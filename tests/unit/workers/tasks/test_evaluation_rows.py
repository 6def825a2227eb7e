"""Lines that hold a row to train on, or one to be judged by."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.rows import RowError, parse_row
from workers.tasks.evaluation_rows import parse_either_row, read_evaluation_row

TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1
).filter(str.strip)


@given(TEXTS, TEXTS, st.one_of(TEXTS, st.integers(), st.booleans()))
def test_a_row_to_train_on_stays_what_it_is(question: str, output: str, answer: object) -> None:
    line = json.dumps({"instruction": question, "output": output, "answer": answer})
    assert parse_either_row(line, 1) == parse_row(line, 1)


@given(TEXTS, st.lists(st.one_of(TEXTS, st.integers(), st.booleans()), min_size=1))
def test_the_first_gold_answer_stands_for_an_output(question: str, answers: list[object]) -> None:
    fields = {"instruction": question, "answer": answers}
    row = parse_either_row(json.dumps(fields), 1)
    judged = read_evaluation_row(fields, 1)
    assert [turn.content for turn in row.turns[:-1]] == [turn.content for turn in judged.turns]
    assert row.turns[-1].content == judged.golds[0]


def test_columns_hold_for_both_forms() -> None:
    row = parse_either_row('{"question": "2 + 2?", "answer": 4}', 1, {"instruction": "question"})
    assert [turn.content for turn in row.turns] == ["2 + 2?", "4"]


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("{", None),
        ("5", None),
        ('{"instruction": "2 + 2?"}', "output"),
        ('{"instruction": "2 + 2?", "answer": []}', "answer"),
    ],
)
def test_what_is_neither_is_refused(line: str, field: str | None) -> None:
    with pytest.raises(RowError) as caught:
        parse_either_row(line, 3)
    assert (caught.value.line, caught.value.field) == (3, field)

"""Rows to be judged by: a question in any form of training data, and its gold answer.

    {"instruction": "How many are 2 + 2?", "answer": 4}
    {"instruction": "Add.", "input": "2 + 2", "output": "The answer is 4.", "answer": "4"}
    {"prompt": "The capital of France is", "answer": ["Paris", "Paris, France"]}
    {"messages": [{"role": "user", "content": "2 + 2?"}], "answer": "4"}

`answer` is the gold answer, or a list of answers that are all right. Where a row has none, it is
read from the row's own output. Where a row has no output, the first gold answer stands for it in
examples.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

import pydantic_core

from workers.rows import (
    Columns,
    Row,
    RowError,
    Turn,
    iter_numbered_lines,
    parse_row,
    validate_row,
)

ANSWER = "answer"


@dataclass(frozen=True)
class EvaluationRow:
    """A row to be judged by."""

    turns: tuple[Turn, ...]
    """The conversation; ends with the user's turn."""

    demonstration: str
    """The answer as the row shows it."""

    golds: tuple[str, ...]
    """Answers that are right; none if the row has only its output."""


def iter_evaluation_rows(file: BinaryIO) -> Iterator[tuple[int, EvaluationRow]]:
    """Read rows, each with the number of its line, from 1.

    Args:
        file: JSON lines, plain or gzip, open for reading.

    Raises:
        RowError: At the first row that is not valid, or if the file has no row.
    """
    for line, text in iter_numbered_lines(file):
        try:
            fields = pydantic_core.from_json(text)
        except ValueError as error:
            raise RowError(line, None, f"is no JSON: {error}; write one object a line") from None
        yield line, read_evaluation_row(fields, line)


def read_evaluation_row(fields: object, line: int) -> EvaluationRow:
    """Validate one row.

    Raises:
        RowError: If it has not the fields of a row.
    """
    if not isinstance(fields, Mapping):
        raise RowError(line, None, 'is no JSON object; write {"instruction": "…", "answer": "…"}')
    golds = _golds(fields[ANSWER], line) if ANSWER in fields else ()
    row = validate_row(_with_output(fields, golds), line)
    *turns, last = row.turns
    return EvaluationRow(tuple(turns), last.content.strip(), golds)


def parse_either_row(text: str, line: int, columns: Columns | None = None) -> Row:
    """Validate a line that holds a row to train on, or to be judged by.

    Returns:
        The row; the first gold answer stands for an output that it has not.

    Raises:
        RowError: If it is neither.
    """
    try:
        return parse_row(text, line, columns)
    except RowError:
        try:
            fields = pydantic_core.from_json(text)
        except ValueError:
            fields = None
        if not isinstance(fields, dict) or ANSWER not in fields:
            raise
    return validate_row(_with_output(fields, _golds(fields[ANSWER], line)), line, columns)


def _golds(answer: object, line: int) -> tuple[str, ...]:
    answers = answer if isinstance(answer, list) else [answer]
    if not answers:
        raise RowError(line, ANSWER, "is an empty list; give at least one answer that is right")
    return tuple(_gold(each, line) for each in answers)


def _gold(answer: object, line: int) -> str:
    match answer:
        case bool():
            return str(answer).lower()
        case int() | float():
            return str(answer)
        case str() if answer.strip():
            return answer.strip()
        case str():
            raise RowError(line, ANSWER, "is empty; give the answer that is right")
    raise RowError(
        line,
        ANSWER,
        f"is {str(answer)[:80]}; give a text, a number, true or false, or a list of these",
    )


def _with_output(fields: Mapping[str, object], golds: tuple[str, ...]) -> dict[str, object]:
    """The row with the first gold answer for an output, if it has none."""
    row = dict(fields)
    if not golds:
        return row
    messages = row.get("messages")
    if isinstance(messages, list):
        last = messages[-1] if messages else None
        if isinstance(last, Mapping) and last.get("role") == "user":
            row["messages"] = [*messages, {"role": "assistant", "content": golds[0]}]
    elif "prompt" in row and "instruction" not in row:
        row.setdefault("completion", golds[0])
    else:
        row.setdefault("output", golds[0])
    return row

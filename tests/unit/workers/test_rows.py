import gzip
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.rows import (
    MAX_LINE_BYTES,
    InstructionRow,
    RowError,
    iter_numbered_rows,
    iter_rows,
    parse_row,
)

ROW = '{"instruction": "2 + 2?", "output": "4"}'
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


def test_a_row_needs_only_instruction_and_output() -> None:
    assert parse_row(ROW, 1) == InstructionRow(instruction="2 + 2?", input="", output="4")


def test_other_fields_of_a_row_are_ignored() -> None:
    text = '{"instruction": "2 + 2?", "output": "4", "answer": 4, "source": null}'
    assert parse_row(text, 1) == parse_row(ROW, 1)


@given(texts.filter(str.strip), texts, texts.filter(str.strip))
def test_a_row_survives_json_unchanged(instruction: str, context: str, output: str) -> None:
    fields = {"instruction": instruction, "input": context, "output": output}
    assert parse_row(json.dumps(fields), 1).model_dump() == fields


@pytest.mark.parametrize(
    ("text", "field", "problem"),
    [
        ('{"instruction": "a"}', "output", "missing"),
        ('{"instruction": "", "output": "b"}', "instruction", "empty"),
        ('{"instruction": " \\n", "output": "b"}', "instruction", "white space only"),
        ('{"instruction": "a", "output": 4}', "output", "not text"),
        ('{"instruction": "a", "input": null, "output": "b"}', "input", "not text"),
        ('{"instruction": "a\\u0000", "output": "b"}', "instruction", "NUL"),
        ('{"instruction": "\\ud800", "output": "b"}', None, "hex escape"),
        ('{"instruction": "a", "output": "b"', None, "one JSON object a line"),
        ('["a", "b"]', None, "no JSON object"),
        ("a,b", None, "one JSON object a line"),
    ],
)
def test_a_malformed_row_names_line_field_and_remedy(
    text: str, field: str | None, problem: str
) -> None:
    with pytest.raises(RowError, match=problem) as caught:
        parse_row(text, 7)
    assert (caught.value.line, caught.value.field) == (7, field)
    assert str(caught.value).startswith("line 7")


def test_a_row_error_survives_pickling() -> None:
    error = RowError(3, "output", "is missing")
    assert str(pickle.loads(pickle.dumps(error))) == "line 3, output: is missing"


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_rows_are_numbered_by_line_and_blank_lines_skipped(pack: type, tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(pack(f"\ufeff{ROW}\n\n  \r\n{ROW}\r\n{ROW}".encode()))
    assert [line for line, _ in iter_numbered_rows(path)] == [1, 4, 5]
    assert list(iter_rows(path)) == [parse_row(ROW, 1)] * 3


@pytest.mark.parametrize(
    ("content", "line", "problem"),
    [
        (b"", 1, "no row"),
        (b"\n \n", 1, "no row"),
        (gzip.compress(b""), 1, "no row"),
        (f"{ROW}\n".encode() + b"\xff\n", 2, "not UTF-8"),
        (f"{ROW}\n".encode() + b"\0\n", 2, "JSON"),
        (f"{ROW}\n".encode() + b"x" * MAX_LINE_BYTES + b"\n", 2, "longer than"),
        (gzip.compress(f"{ROW}\n".encode())[:-9], 2, "damaged"),
        (gzip.compress(f"{ROW}\n".encode())[:5] + b"garbage", 1, "damaged"),
    ],
    ids=["empty", "blank", "empty-gzip", "not-utf8", "nul", "long", "cut-gzip", "broken-gzip"],
)
def test_an_unreadable_file_is_refused_at_its_line(
    content: bytes, line: int, problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(RowError, match=problem) as caught:
        list(iter_rows(path))
    assert caught.value.line == line


def test_a_gzip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(bytes(64 * MAX_LINE_BYTES)))
    with pytest.raises(RowError, match="longer than"):
        list(iter_rows(path))


def test_rows_and_specs_are_importable_without_torch() -> None:
    code = "import sys, workers.rows, workers.specs, workers.errors; print('torch' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "False"

import gzip
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers import parquet
from workers.rows import (
    MAX_LINE_BYTES,
    InstructionRow,
    RowError,
    TableRowError,
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


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{"instruction": "2 + 2?", "answer": 4}', "output"),
        ('{"prompt": "2 + 2 =", "answer": 4}', "completion"),
    ],
)
def test_a_row_to_be_judged_by_cannot_be_trained_on(text: str, field: str) -> None:
    with pytest.raises(RowError, match="can be evaluated on, not trained on") as caught:
        parse_row(text, 7)
    assert caught.value.field == field


def test_a_conversation_shows_its_turns_in_order() -> None:
    row = parse_row(
        json.dumps(
            {
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": "2 + 2?", "name": "ignored"},
                    {"role": "assistant", "content": "5", "weight": 0},
                    {"role": "user", "content": "No."},
                    {"role": "assistant", "content": "4"},
                ]
            }
        ),
        1,
    )
    assert [turn.role for turn in row.turns] == ["system", "user", "assistant", "user", "assistant"]
    assert [turn.content for turn in row.turns if turn.is_learned] == ["4"]


def test_a_prompt_and_its_completion_are_a_question_and_its_answer() -> None:
    completion = parse_row('{"prompt": "2 + 2 =", "completion": " 4"}', 1)
    instruction = parse_row('{"instruction": "2 + 2 =", "output": " 4"}', 1)
    assert completion.turns == instruction.turns


@pytest.mark.parametrize(
    ("messages", "field", "problem"),
    [
        ([], "messages", "at least 1"),
        ([("user", "a")], None, "ends with a turn of the user"),
        ([("user", "a"), ("assistant", 4)], "messages[1].content", "not text"),
        ([("user", "a"), ("tool", "b")], "messages[1].role", "'system', 'user' or 'assistant'"),
        ([("user", "a"), ("system", "b"), ("assistant", "c")], None, "not the first"),
    ],
)
def test_a_malformed_conversation_names_the_turn_at_fault(
    messages: list[tuple[str, object]], field: str | None, problem: str
) -> None:
    turns = [{"role": role, "content": content} for role, content in messages]
    with pytest.raises(RowError, match=problem) as caught:
        parse_row(json.dumps({"messages": turns}), 7)
    assert caught.value.field == field


def test_a_conversation_without_an_answer_to_learn_is_refused() -> None:
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "weight": 0},
    ]
    with pytest.raises(RowError, match="weight 0 on every answer"):
        parse_row(json.dumps({"messages": turns}), 1)


def test_fields_may_have_other_names_in_the_file() -> None:
    columns = {"instruction": "question", "output": "answer"}
    assert parse_row('{"question": "2 + 2?", "answer": "4"}', 1, columns) == parse_row(ROW, 1)
    with pytest.raises(RowError, match=r"answer: is missing, and data\.columns names it") as caught:
        parse_row('{"question": "2 + 2?"}', 5, columns)
    assert (caught.value.line, caught.value.field) == (5, "answer")
    with pytest.raises(RowError, match="is no JSON"):
        parse_row("{", 1, columns)


def test_parquet_rows_are_read_as_json_rows_are(tmp_path: Path) -> None:
    conversation = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    for name, fields in {
        "instruction": [
            {"instruction": "2 + 2?", "input": None, "output": "4"},
            {"instruction": "a", "input": "b", "output": "c"},
        ],
        "chat": [{"messages": conversation}, {"messages": [*conversation, *conversation]}],
    }.items():
        path = tmp_path / name
        pyarrow.parquet.write_table(pa.Table.from_pylist(fields), path)
        lines = [
            json.dumps({key: value for key, value in row.items() if value is not None})
            for row in fields
        ]
        assert list(iter_rows(path)) == [parse_row(line, 1) for line in lines]


def test_a_malformed_parquet_file_names_the_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table = pa.Table.from_pylist([{"instruction": "a", "output": "b"}, {"instruction": "c"}])
    pyarrow.parquet.write_table(table, path)
    with pytest.raises(RowError, match=r"^row 2, output: is missing") as caught:
        list(iter_rows(path))
    assert caught.value.line == 2
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RowError, match="Parquet file is damaged"):
        list(iter_rows(path))


def test_columns_that_no_row_is_made_of_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table = pa.Table.from_pylist([{"instruction": "a", "output": "b"}])
    beyond_python = pa.array([2**62], pa.timestamp("us"))
    pyarrow.parquet.write_table(table.append_column("when", beyond_python), path)
    assert list(iter_rows(path)) == [InstructionRow(instruction="a", output="b")]


def test_columns_of_a_parquet_file_may_have_other_names(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pa.Table.from_pylist([{"question": "a", "answer": "b"}]), path)
    with path.open("rb") as file:
        columns = {"instruction": "question", "output": "answer"}
        assert list(iter_numbered_rows(file, columns)) == [
            (1, InstructionRow(instruction="a", output="b"))
        ]
    with path.open("rb") as file, pytest.raises(TableRowError, match="has question, answer"):
        list(iter_numbered_rows(file, {"instruction": "query"}))


def test_parquet_text_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    broken = pa.array([b"b", b"\xff"], pa.binary()).view(pa.string())
    pyarrow.parquet.write_table(pa.table({"instruction": ["a", "a"], "output": broken}), path)
    with pytest.raises(TableRowError, match=r"damaged .*utf-8"):
        list(iter_rows(path))


def test_a_row_group_that_is_too_large_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.parquet"
    rows = [{"instruction": f"{number} {'a' * 1000}", "output": "b"} for number in range(40)]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=30)
    monkeypatch.setattr(parquet, "MAX_ROW_GROUP_BYTES", 40_000)
    assert len(list(iter_rows(path))) == 40
    monkeypatch.setattr(parquet, "MAX_ROW_GROUP_BYTES", 20_000)
    with pytest.raises(TableRowError, match=r"row 1: begins a row group of .*smaller row groups"):
        list(iter_rows(path))


def test_rows_that_repeat_one_long_text_are_unpacked_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.parquet"
    once = pa.DictionaryArray.from_arrays(pa.array([0] * 200), ["b" * 500_000])
    table = pa.table({"instruction": ["a"] * 200, "output": once})
    pyarrow.parquet.write_table(table, path, store_schema=False)
    monkeypatch.setattr(parquet, "MAX_ROW_GROUP_BYTES", 4_000_000)
    before = pa.total_allocated_bytes()
    with path.open("rb") as file:
        allocated = [pa.total_allocated_bytes() - before for _ in iter_numbered_rows(file)]
    assert len(allocated) == 200
    assert max(allocated) < 12_000_000, "all rows take 100,000,000 bytes"


@pytest.mark.parametrize(("kind", "unit"), [(RowError, "line"), (TableRowError, "row")])
def test_a_row_error_survives_pickling(kind: type[RowError], unit: str) -> None:
    error = kind(3, "output", "is missing")
    assert str(pickle.loads(pickle.dumps(error))) == f"{unit} 3, output: is missing"


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_rows_are_numbered_by_line_and_blank_lines_skipped(pack: type, tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(pack(f"\ufeff{ROW}\n\n  \r\n{ROW}\r\n{ROW}".encode()))
    with path.open("rb") as file:
        assert [line for line, _ in iter_numbered_rows(file)] == [1, 4, 5]
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


@pytest.mark.parametrize("line", [b"\n", b"%s\n" % ROW.encode()], ids=["blank", "rows"])
def test_lines_that_a_gzip_bomb_repeats_are_not_read_to_the_end(
    line: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.rows.GZIP_FREE_BYTES", 1 << 16)
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(line * (8 * (1 << 20) // len(line))))
    with pytest.raises(RowError, match="more than 200 times its size"):
        list(iter_rows(path))


def test_rows_and_specs_are_importable_without_torch() -> None:
    code = "import sys, workers.rows, workers.specs, workers.errors; print('torch' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "False"

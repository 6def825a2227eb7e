"""Rows of tasks as questions: where they lie, how many, with which examples."""

import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.evaluation.questions import read_tasks
from jobs.task_specs import TaskSpec
from jobs.tickets import FileRef
from workers.errors import DataInvalidError

FILE_ID = "file-0123456789abcdef"


def spec_of(**fields: Any) -> TaskSpec:
    return TaskSpec.model_validate({"benchmark": "addsub", "data": FILE_ID} | fields)


def write(path: Path, rows: list[dict[str, Any]]) -> dict[str, FileRef]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {FILE_ID: FileRef(uri=str(path), sha256="0" * 64, num_rows=len(rows))}


def sums(count: int) -> list[dict[str, Any]]:
    return [{"instruction": f"{n} + 1 =", "answer": n + 1} for n in range(count)]


def test_an_uploaded_file_and_a_url_plain_or_gzip_are_the_same_questions(tmp_path: Path) -> None:
    files = write(tmp_path / "rows.jsonl", sums(3))
    packed = tmp_path / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress((tmp_path / "rows.jsonl").read_bytes()))
    specs = [spec_of(name="a"), spec_of(name="b", data=f"file://{packed}")]
    first, second = read_tasks(specs, files)
    assert first.questions == second.questions
    assert [question.golds for question in first.questions] == [("1",), ("2",), ("3",)]
    assert (first.task.name, second.task.name) == ("a", "b")


def test_only_the_first_rows_are_read(tmp_path: Path) -> None:
    files = write(tmp_path / "rows.jsonl", [*sums(2), {"instruction": "no gold answer"}])
    (task,) = read_tasks([spec_of(max_rows=2)], files)
    assert len(task.questions) == 2


def test_a_row_that_is_wrong_is_named_by_task_line_and_field(tmp_path: Path) -> None:
    files = write(tmp_path / "rows.jsonl", [*sums(2), {"instruction": "x", "answer": "many"}])
    with pytest.raises(
        DataInvalidError, match=r"^task sums \(tasks\.1\.data\), line 3, answer: .*many"
    ):
        read_tasks([spec_of(max_rows=1), spec_of(name="sums")], files)


def test_examples_are_drawn_by_a_seed_and_are_never_questions(tmp_path: Path) -> None:
    files = write(tmp_path / "rows.jsonl", sums(6))
    pool = tmp_path / "pool.jsonl"
    write(pool, sums(9))
    shots = {"num_shots": 2, "shots": f"file://{pool}"}
    first, same = (read_tasks([spec_of(**shots)], files)[0].shots for _ in range(2))
    assert first == same
    assert {shot.golds for shot in first} <= {("7",), ("8",), ("9",)}
    with pytest.raises(
        DataInvalidError, match=r"^task addsub \(tasks\.0\.shots\): 4 examples .* 3 of the 9"
    ):
        read_tasks([spec_of(**shots | {"num_shots": 4})], files)


def test_own_rows_are_scored_as_their_scorer_says(tmp_path: Path) -> None:
    files = write(tmp_path / "rows.jsonl", [{"prompt": "Capital?", "answer": ["Paris", "Lyon"]}])
    spec = TaskSpec.model_validate({"name": "own", "scorer": {"kind": "exact"}, "data": FILE_ID})
    (task,) = read_tasks([spec], files)
    assert task.task.score("Lyon", task.questions[0]) == 1
    assert task.task.score("Nice", task.questions[0]) == 0


def test_a_hub_data_set_is_read_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [*sums(2), {"instruction": "3 + 1 =", "answer": None, "output": "no number"}]
    built = SimpleNamespace(download_and_prepare=lambda: None, as_dataset=lambda **_: given)
    monkeypatch.setattr("workers.hub_rows._builder", lambda *_: built)
    data = {"dataset": "owner/sums", "split": "test"}
    (task,) = read_tasks([spec_of(data=data, max_rows=2)], {})
    assert [question.golds for question in task.questions] == [("1",), ("2",)]
    with pytest.raises(DataInvalidError, match=r"tasks\.0\.data\), row 3, output: "):
        read_tasks([spec_of(data=data)], {})

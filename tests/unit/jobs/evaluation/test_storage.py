"""Files of predictions that grow on storage, shared or remote."""

from pathlib import Path

import pytest
from pyarrow.fs import FileSystem, LocalFileSystem, SubTreeFileSystem

from jobs.evaluation import storage
from jobs.evaluation.storage import read_stored, stored_file
from tests.unit.jobs.evaluation.test_report import predictions

LINES = [f"{each.model_dump_json()}\n" for each in predictions("gsm8k", "base", 1, 3)]


class Remote:
    """Storage that no path leads to: a folder behind another file system."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def from_uri(self, uri: str) -> tuple[FileSystem, str]:
        return SubTreeFileSystem(str(self._folder), LocalFileSystem()), uri.removeprefix("s3://")


@pytest.fixture(params=["shared", "remote"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "shared":
        return str(tmp_path / "job")
    monkeypatch.setattr(storage, "FileSystem", Remote(tmp_path))
    return "s3://job"


def test_what_one_writer_leaves_the_next_goes_on_with(folder: str, tmp_path: Path) -> None:
    with stored_file(folder, "a.jsonl") as path:
        assert not path.exists()
        path.write_text(LINES[0])
    with stored_file(folder, "a.jsonl") as path, path.open("a") as file:
        file.write(LINES[1])
    assert (tmp_path / "job" / "a.jsonl").read_text() == LINES[0] + LINES[1]
    assert [each.row for each in read_stored(folder, "a.jsonl")] == [0, 1]


def test_a_writer_that_fails_leaves_what_it_has(folder: str) -> None:
    def fail() -> None:
        with stored_file(folder, "a.jsonl") as path:
            path.write_text(LINES[0])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert len(read_stored(folder, "a.jsonl")) == 1


def test_a_remote_file_is_copied_while_it_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "FileSystem", Remote(tmp_path))
    monkeypatch.setattr(storage, "_COPY_INTERVAL_S", 0.01)
    with stored_file("s3://job", "a.jsonl") as path:
        path.write_text(LINES[0] + LINES[1][:20])
        stored = tmp_path / "job" / "a.jsonl"
        while not (stored.exists() and stored.read_bytes()):
            pass
        assert [each.row for each in read_stored("s3://job", "a.jsonl")] == [0]

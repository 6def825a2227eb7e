import gzip
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest
from huggingface_hub import HfApi

from workers.errors import DataInvalidError
from workers.rows import parse_row
from workers.sources import read_rows
from workers.specs import HubDatasetSpec

LINE = '{"instruction": "1 + 1", "output": "2"}'
FILE_ID = f"file-{0:016x}"


def test_an_uploaded_file_is_found_by_its_id(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_text(f"\n{LINE}\n")
    assert read_rows(FILE_ID, name="data.train", files={FILE_ID: path}) == [(2, parse_row(LINE, 2))]


@pytest.mark.parametrize("kind", ["jsonl", "gzip", "parquet"])
def test_a_url_is_read_whatever_its_name_says(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.data"
    if kind == "parquet":
        table = pa.Table.from_pylist([{"instruction": "1 + 1", "output": "2"}])
        pyarrow.parquet.write_table(table, path)
    else:
        path.write_bytes(gzip.compress(LINE.encode()) if kind == "gzip" else LINE.encode())
    assert read_rows(path.as_uri(), name="data.train") == [(1, parse_row(LINE, 1))]


def test_a_data_set_of_the_hub_is_read_with_its_own_names_of_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    for split in ("train", "test"):
        path = tmp_path / "set" / f"{split}.jsonl"
        path.write_text(f'{{"question": "{split}?", "answer": "2"}}\n' * 3)
    # A folder in place of an id takes the same way through the library, without a network.
    source = HubDatasetSpec.model_construct(
        dataset=str(tmp_path / "set"), config=None, split="test[:2]", revision=None
    )
    columns = {"instruction": "question", "output": "answer"}
    rows = read_rows(source, name="data.train", columns=columns)
    assert [line for line, _ in rows] == [1, 2]
    assert rows[0][1].turns[0].content == "test?"


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("file:///no/such/file", r"data\.train, kept in file:///no/such/file, cannot be read"),
        ("gs://bucket/rows.jsonl", r"data\.train 'gs://.*' needs a package that the workers lack"),
    ],
)
def test_a_source_that_cannot_be_read_says_why_and_what_to_do(source: str, sentence: str) -> None:
    with pytest.raises(DataInvalidError, match=sentence):
        read_rows(source, name="data.train")


def test_a_data_set_that_the_hub_does_not_have_is_said_to_be_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent(*_: object, **__: object) -> None:
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'a/b' doesn't exist")

    monkeypatch.setattr(HfApi, "dataset_info", absent)
    with pytest.raises(DataInvalidError, match=r"'a/b' cannot be read .* check its id"):
        read_rows(HubDatasetSpec(dataset="a/b"), name="data.train")

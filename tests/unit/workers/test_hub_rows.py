"""A data set whose author says where its files are, and lies."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import datasets
import huggingface_hub
import pytest
from huggingface_hub.errors import OfflineModeIsEnabled

from workers.errors import DataInvalidError, ReferenceNotAllowedError
from workers.sources import read_rows
from workers.specs import HubDatasetSpec

SECRET = '{"instruction": "secret", "output": "2"}\n'
CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: {path}
---
# Rows
"""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put a description on a hub of our own; whoever opens the data set itself fails the test."""
    described: dict[str, str] = {}

    def download(_id: str, file: str, **_: object) -> str:
        if file not in described:
            raise huggingface_hub.errors.EntryNotFoundError("404")
        path = tmp_path / file
        path.write_text(described[file])
        return str(path)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the data set was opened")

    def info(_self: object, _id: str, **_: object) -> SimpleNamespace:
        return SimpleNamespace(sha="0" * 40)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", info)
    monkeypatch.setattr(datasets, "load_dataset_builder", never)
    return described.__setitem__


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../../other/rows.jsonl",
        "data/../../rows.jsonl",
        "~/rows.jsonl",
        "http://169.254.169.254/latest/meta-data",
        "s3://bucket/rows.jsonl",
        "zip://rows.jsonl::https://evil.example/a.zip",
        "hf://datasets/someone/private/rows.jsonl",
    ],
)
@pytest.mark.parametrize("file", ["README.md", ".huggingface.yaml"])
def test_a_description_that_leads_elsewhere_is_refused_before_anything_is_opened(
    path: str, file: str, publish: Callable[[str, str], None]
) -> None:
    card = CARD.format(path=path)
    publish(file, card if file == "README.md" else card.split("---\n")[1])
    with pytest.raises(ReferenceNotAllowedError, match="which is no file of its own") as refusal:
        read_rows(HubDatasetSpec(dataset="evil/rows"), name="data.train")
    assert repr(path) in str(refusal.value)


def test_files_elsewhere_are_refused_even_if_the_description_was_not_seen(tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_text(SECRET)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "README.md").write_text(CARD.format(path=tmp_path / "secret.jsonl"))
    source = HubDatasetSpec.model_construct(
        dataset=str(tmp_path / "set"), config=None, split="train", revision=None
    )
    with pytest.raises(ReferenceNotAllowedError, match=r"secret\.jsonl"):
        read_rows(source, name="data.train")


def test_a_name_of_the_librarys_own_reads_nothing_of_the_folder_where_the_worker_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OfflineModeIsEnabled("offline")

    (tmp_path / "secret.json").write_text(SECRET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", offline)
    with pytest.raises((ReferenceNotAllowedError, DataInvalidError), match="data set 'json'"):
        read_rows(HubDatasetSpec(dataset="json"), name="data.train")


def test_an_honest_description_is_followed(
    tmp_path: Path, publish: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("README.md", CARD.format(path="data/*.jsonl"))
    opened: list[tuple[object, ...]] = []

    def open_it(*arguments: object, **options: object) -> None:
        opened.append((*arguments, options["revision"]))
        raise FileNotFoundError("no such file")

    monkeypatch.setattr(datasets, "load_dataset_builder", open_it)
    with pytest.raises(DataInvalidError, match="no such file"):
        read_rows(HubDatasetSpec(dataset="good/rows"), name="data.train")
    assert opened == [("good/rows", None, "0" * 40)], "the commit that was looked at"

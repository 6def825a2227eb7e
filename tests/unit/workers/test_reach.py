"""What jobs may read, held to what a hostile spec could name."""

from pathlib import Path

import pytest

from workers.base_model import resolve
from workers.errors import ReferenceNotAllowedError
from workers.mlflow_download import adapter_folder
from workers.reach import REACH_VARIABLE, Reach, confine
from workers.sources import read_rows
from workers.specs import HubDatasetSpec

LINE = '{"instruction": "1 + 1", "output": "2"}\n'
FILE_ID = f"file-{0:016x}"


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    folder = tmp_path / "allowed"
    folder.mkdir()
    return folder


@pytest.fixture
def reach(allowed: Path, monkeypatch: pytest.MonkeyPatch) -> Reach:
    """What this process is confined to until the test ends: one folder, one bucket."""
    reach = Reach(
        base_models=("Qwen/*", "models:/team[@/]*"),
        folders=(str(allowed),),
        sources=("s3://rows/train", "gs://public-*", "hub://openai/*"),
    )
    monkeypatch.setenv(REACH_VARIABLE, "")
    confine(reach)
    return reach


@pytest.mark.parametrize("reference", ["Qwen/Qwen3-0.6B", "models:/team@best", "models:/team/3"])
def test_base_models_that_match_a_pattern_are_allowed(reach: Reach, reference: str) -> None:
    assert reach.refusal_of_base_model(reference) is None


@pytest.mark.parametrize(
    "reference",
    [
        "evil/model",
        "qwen/Qwen3",
        "Qwen",
        "Qwen/../evil",
        "models:/teammate/3",
        "models:/team/../other/1",
        "models:/team/%2e%2e/1",
        "models://host/team/1",
        "models:///team/1",
        "runs:/0123/model",
        "https://evil.example/model",
        "http://169.254.169.254/latest/meta-data",
        "s3://bucket/model",
        "file:///etc",
        "mlflow-artifacts:/1/model",
        "dbfs:/model",
        "~/model",
        "./model",
        "../model",
        "/etc",
        "/",
        "//",
        "",
        "Qwen/\x00",
        "/allowed\x00",
        "\N{FULLWIDTH SOLIDUS}etc",
        "Qwen/\N{CYRILLIC SMALL LETTER A}",
    ],
)
def test_other_base_models_are_refused_with_what_was_named(reach: Reach, reference: str) -> None:
    refusal = reach.refusal_of_base_model(reference)
    assert refusal is not None
    assert repr(reference) in refusal
    with pytest.raises(ReferenceNotAllowedError, match=r"^base_model: "):
        resolve(reference)


def test_by_default_any_name_is_allowed_and_no_folder_or_bucket_is(tmp_path: Path) -> None:
    reach = Reach()
    assert reach.refusal_of_base_model("some/model") is None
    assert reach.refusal_of_base_model("models:/team/3") is None
    assert reach.refusal_of_source(HubDatasetSpec(dataset="openai/gsm8k")) is None
    assert reach.refusal_of_base_model(str(tmp_path)) is not None
    assert reach.refusal_of_adapter(str(tmp_path)) is not None
    assert reach.refusal_of_source(f"file://{tmp_path}/rows") is not None
    assert reach.refusal_of_source("s3://bucket/rows") is not None


@pytest.mark.parametrize("path", ["{}", "{}/", "{}/a", "{}/a/b.jsonl", "{}/a/../b", "{}//a"])
def test_paths_in_an_allowed_folder_are_allowed(reach: Reach, allowed: Path, path: str) -> None:
    assert reach.refusal_of_path(path.format(allowed)) is None


@pytest.mark.parametrize(
    "path",
    "{}2 {}/.. {}/../other {}/a/../../other {}/.ssh/id {}/a/.env / /etc/passwd".split(),
)
def test_paths_out_of_it_or_hidden_in_it_are_refused(
    reach: Reach, allowed: Path, path: str
) -> None:
    assert reach.refusal_of_path(path.format(allowed)) is not None


def test_a_symbolic_link_counts_as_what_it_leads_to(
    reach: Reach, allowed: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "rows").write_text(LINE)
    (allowed / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "way in").symlink_to(allowed)
    assert reach.refusal_of_path(f"{allowed}/link/rows") is not None
    assert reach.refusal_of_path(f"{tmp_path}/way in/rows") is None
    with pytest.raises(ReferenceNotAllowedError, match=r"data\.train: .*outside the folders"):
        read_rows(f"file://{allowed}/link/rows", name="data.train")


def test_of_nested_folders_the_innermost_decides() -> None:
    reach = Reach(folders=("/data", "/data/state/models"), closed_folders=("/data/state",))
    assert reach.refusal_of_path("/data/rows") is None
    assert reach.refusal_of_path("/data/state/token") is not None
    assert reach.refusal_of_path("/data/state/models/a") is None
    same = Reach(folders=("/data",), closed_folders=("/data",))
    assert same.refusal_of_path("/data/rows") is not None


@pytest.mark.parametrize(
    "source", ["s3://rows/train/a.jsonl", "s3://rows/train/b/c", "gs://public-1/a"]
)
def test_urls_below_an_allowed_place_are_allowed(reach: Reach, source: str) -> None:
    assert reach.refusal_of_source(source) is None


@pytest.mark.parametrize(
    "source",
    [
        "s3://rows/training/a",
        "s3://rows/a",
        "s3://rows",
        "s3://other/train/a",
        "gs://rows/train/a",
        "abfs://rows/train/a",
        "http://169.254.169.254/latest/meta-data",
        "https://rows/train/a",
        "file:///etc/passwd",
    ],
)
def test_other_urls_are_refused_where_they_would_be_read(reach: Reach, source: str) -> None:
    with pytest.raises(ReferenceNotAllowedError, match=r"^data\.train: "):
        read_rows(source, name="data.train")


def test_a_data_set_of_the_hub_must_match_a_pattern(reach: Reach) -> None:
    assert reach.refusal_of_source(HubDatasetSpec(dataset="openai/gsm8k")) is None
    with pytest.raises(ReferenceNotAllowedError, match="'evil/rows' is none of the hub's"):
        read_rows(HubDatasetSpec(dataset="evil/rows"), name="data.train")


def test_an_uploaded_file_is_read_wherever_the_service_has_put_it(
    reach: Reach, tmp_path: Path
) -> None:
    path = tmp_path / "stored"
    path.write_text(LINE)
    assert read_rows(FILE_ID, name="data.train", files={FILE_ID: path})


def test_a_folder_that_looks_like_a_name_is_judged_as_a_folder(
    reach: Reach, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Qwen" / "model").mkdir(parents=True)
    (tmp_path / "openai" / "rows").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ReferenceNotAllowedError, match="outside the folders"):
        resolve("Qwen/model")
    with pytest.raises(ReferenceNotAllowedError, match="is a folder on a worker"):
        read_rows(HubDatasetSpec(dataset="openai/rows"), name="data.train")


def test_adapters_come_from_mlflow_or_an_allowed_folder(
    reach: Reach, allowed: Path, tmp_path: Path
) -> None:
    assert reach.refusal_of_adapter("models:/anything/1") is None
    assert adapter_folder(f"{allowed}/adapter", "mine") == allowed / "adapter"
    with pytest.raises(ReferenceNotAllowedError, match="adapter of model 'theirs'"):
        adapter_folder(str(tmp_path / "other"), "theirs")

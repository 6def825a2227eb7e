"""Every example in docs/data.md and README.md is one that the service takes."""

import re
from pathlib import Path

import pytest
import yaml

from jobs.finetune_specs import FinetuneSpec
from service.cli.spec_file import local_data, read_spec_file, with_file_ids
from workers.chat_templates import CHAT_TEMPLATES
from workers.parquet import MAX_ROW_GROUP_BYTES
from workers.rows import MAX_LINE_BYTES, parse_row

ROOT = Path(__file__).parents[3]
DATA_PAGE = (ROOT / "docs/data.md").read_text()
README = (ROOT / "README.md").read_text()
FILE_ID = "file-0123456789abcdef"
JOB = {"kind": "finetune", "name": "example", "base_model": "tiny"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DATA_PAGE, re.MULTILINE | re.DOTALL)


ROWS = [line for block in blocks("json") for line in block.splitlines()]


@pytest.mark.parametrize("row", ROWS)
def test_every_row_shown_is_valid(row: str) -> None:
    assert any(turn.is_learned for turn in parse_row(row, 1).turns)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_spec_shown_is_valid_once_its_data_is_uploaded(text: str, tmp_path: Path) -> None:
    assert_valid(yaml.safe_dump(JOB) + text, tmp_path)


def test_the_spec_in_the_readme_is_valid_once_its_data_is_uploaded(tmp_path: Path) -> None:
    (text,) = re.findall(r"<<'SPEC'\n(.*?)^SPEC$", README, re.MULTILINE | re.DOTALL)
    assert_valid(text, tmp_path)


def test_the_page_has_examples_and_names_what_there_is() -> None:
    assert len(ROWS) >= 4
    assert len(blocks("yaml")) >= 6
    for name in CHAT_TEMPLATES:
        assert f"`{name}`" in DATA_PAGE
    assert f"{MAX_LINE_BYTES >> 20} MiB long" in DATA_PAGE
    assert f"{MAX_ROW_GROUP_BYTES >> 20} MiB" in DATA_PAGE


def assert_valid(text: str, folder: Path) -> None:
    path = folder / "job.yaml"
    path.write_text(text)
    for name in re.findall(r"\w+\.jsonl\b(?!\.gz)", text):
        (folder / name).touch()
    spec = read_spec_file(path)
    uploaded = with_file_ids(spec, dict.fromkeys(local_data(spec), FILE_ID))
    FinetuneSpec.model_validate(uploaded.document)

"""Every example in docs/search.md is one that the service takes."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.objective_specs import ObjectiveMetric, TaskMeasure
from jobs.search_space import ChoiceSpec, LogUniformSpec
from jobs.search_specs import CHANGEABLE_FIELDS, AlgorithmSpec, BudgetSpec, SearchSpec
from service.cli.spec_file import local_data, read_spec_file, with_file_ids
from workers.specs import Spec

PAGE = (Path(__file__).parents[3] / "docs/search.md").read_text()
BLOCKS = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
JOB: dict[str, Any] = {
    "kind": "search",
    "name": "example",
    "base_model": "tiny",
    "data": {"train": "rows.jsonl", "validation_rows": 2},
    "space": {"adapter.curvature": {"loguniform": [0.1, 10]}},
}


def spec_of(text: str, folder: Path) -> SearchSpec:
    """The search that a file with this text asks for, once its data is uploaded."""
    for name in {"rows.jsonl", *re.findall(r"[\w-]+\.jsonl", text)}:
        (folder / name).touch()
    path = folder / "search.yaml"
    path.write_text(text)
    spec = read_spec_file(path)
    ids = {field: f"file-{number:016x}" for number, field in enumerate(local_data(spec))}
    uploaded = with_file_ids(spec, ids)
    return SearchSpec.model_validate(uploaded.document)


@pytest.mark.parametrize("text", BLOCKS)
def test_every_spec_shown_is_valid_once_its_data_is_uploaded(text: str, tmp_path: Path) -> None:
    left_out = {key: value for key, value in JOB.items() if key not in yaml.safe_load(text)}
    spec_of(text + (yaml.safe_dump(left_out) if left_out else ""), tmp_path)


def test_the_first_example_is_complete_and_searches_curvature_and_rank(tmp_path: Path) -> None:
    space = spec_of(BLOCKS[0], tmp_path).space

    assert space == {
        "adapter.curvature": LogUniformSpec(loguniform=(0.1, 10)),
        "adapter.r": ChoiceSpec(choice=(4, 8, 16, 32)),
    }


@pytest.mark.parametrize("spec", [SearchSpec, AlgorithmSpec, BudgetSpec])
def test_every_setting_of_a_search_is_on_the_page(spec: type[Spec]) -> None:
    for name in spec.model_fields:
        assert re.search(rf"\b{name}\b", PAGE), name


def test_every_objective_and_every_changeable_field_is_on_the_page() -> None:
    measures = [f"{measure}/TASK" for measure in TaskMeasure]
    for name in (*ObjectiveMetric, *measures, *CHANGEABLE_FIELDS):
        assert f"`{name}`" in PAGE

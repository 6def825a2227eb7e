"""Every example in docs/evaluation.md is one that the tasks take, and every name stands there."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic import TypeAdapter

from jobs.evaluate_specs import EvaluateSpec
from workers.tasks.evaluation_rows import read_evaluation_row
from workers.tasks.numbers import TOLERANCE
from workers.tasks.registry import TASKS
from workers.tasks.specs import ScorerSpec

PAGE = (Path(__file__).parents[3] / "docs/evaluation.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
ROWS, SCORERS = (block.splitlines() for block in BLOCKS)
SPECS = get_args(get_args(ScorerSpec)[0])


@pytest.mark.parametrize("row", ROWS)
def test_every_row_shown_is_valid(row: str) -> None:
    assert read_evaluation_row(json.loads(row), 1).turns


@pytest.mark.parametrize("scorer", SCORERS)
def test_every_scorer_shown_is_valid(scorer: str) -> None:
    TypeAdapter(ScorerSpec).validate_json(scorer)


def test_the_page_names_every_task_and_which_log_likelihoods_it_reports() -> None:
    table = {
        name: [metric for metric, mark in zip(("acc", "acc_norm"), marks, strict=True) if mark]
        for names, *marks in re.findall(
            r"^\| ((?:`\w+`(?:, )?)+) \|[^|]*\|[^|]*\| (✓?) ?\| (✓?) ?\|$", PAGE, re.MULTILINE
        )
        for name in re.findall(r"\w+", names)
    }
    assert table == {name: list(task.likelihood_metrics) for name, task in TASKS.items()}


@pytest.mark.parametrize("spec", SPECS)
def test_the_page_names_every_scorer_and_its_fields(spec: type) -> None:
    fields = TypeAdapter(spec).json_schema()["properties"]
    kind = fields.pop("kind")["const"]

    (row,) = re.findall(rf"^\| `{kind}` \|.*$", PAGE, re.MULTILINE)

    assert all(f"`{field}`" in row for field in fields)


def test_the_page_tells_the_tolerance() -> None:
    assert f"`tolerance` ({TOLERANCE})" in PAGE
    assert f"Right within {TOLERANCE}" in PAGE


def test_the_job_shown_is_valid() -> None:
    (shown,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    spec = EvaluateSpec.model_validate(yaml.safe_load(shown))
    assert [model.name for model in spec.models] == ["base", "sums-7", "lora"]
    assert spec.candidate.name == "sums-7"

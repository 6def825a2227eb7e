"""docs/comparing.md shows what can be submitted, and names what there is."""

import re
from pathlib import Path

import yaml

from jobs.compare_plan import plan
from jobs.compare_report.comparison import MethodDifference
from jobs.compare_specs import CompareSpec
from jobs.method_specs import PresetName

PAGE = (Path(__file__).parents[3] / "docs/comparing.md").read_text(encoding="utf-8")


def example() -> CompareSpec:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    # What the command line uploads is a file of the service by the time the spec is read.
    names = sorted(set(re.findall(r"\w[\w-]*\.jsonl", block)))
    for number, name in enumerate(names):
        block = block.replace(name, f"file-{number:016x}")
    return CompareSpec.model_validate(yaml.safe_load(block))


def test_the_example_is_a_comparison_of_as_many_trainings_as_the_page_counts() -> None:
    spec = example()
    num_methods, num_rates, num_seeds = 6, 3, 5
    assert plan(spec).num_trainings == num_methods * (num_rates + num_seeds - 1)


def test_every_preset_is_explained() -> None:
    explained = re.findall(r"^\| `([\w-]+)` \| (?:nothing|LoRA|HypLoRA|DoRA)", PAGE, re.MULTILINE)
    assert explained == list(PresetName)


def test_every_statistic_that_the_page_names_is_in_the_report() -> None:
    table = PAGE.partition("| statistic |")[2].partition("\n\n")[0]
    named = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (.*?) \|", table, re.MULTILINE)))
    assert len(named) == 7
    assert set(named) <= set(MethodDifference.model_fields)

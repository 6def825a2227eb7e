"""Every row of the benchmarks' files is read whole; skipped where they are not stored."""

import re
from pathlib import Path

import pytest

from workers.tasks.registry import TASKS, task_named

DATA = Path(__file__).parents[4].parent / "shared" / "data"
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="the reasoning data sets are not stored beside the project"
)

NUM_ROWS = {
    "arithmetic": {
        "gsm8k": 1319, "mawps": 238, "svamp": 1000, "addsub": 395, "multiarith": 600,
        "singleeq": 508, "aqua": 254,
    },
    "commonsense": {
        "boolq": 3270, "piqa": 1838, "siqa": 1954, "hellaswag": 10042, "winogrande": 1267,
        "arc_e": 2376, "arc_c": 1172, "obqa": 500,
    },
}  # fmt: skip
NUM_OPTIONS = {
    "aqua": {5}, "boolq": {2}, "piqa": {2}, "siqa": {3}, "hellaswag": {4}, "winogrande": {2},
    "arc_e": {3, 4, 5}, "arc_c": {3, 4, 5}, "obqa": {4},
}  # fmt: skip
LABEL = re.compile(r"Answer format|(?:Answer|Option|Solution|Ending)\d:")
FILES = [(family, name) for family, names in NUM_ROWS.items() for name in names]


def test_every_benchmark_is_looked_at() -> None:
    assert {name for _, name in FILES} == set(TASKS)


@needs_data
@pytest.mark.parametrize(("family", "name"), FILES)
def test_every_row_is_read_and_its_own_answer_is_right(family: str, name: str) -> None:
    task = task_named(name)

    with (DATA / family / "test" / f"{name}.jsonl.gz").open("rb") as file:
        questions = list(task.questions(file))

    assert len(questions) == NUM_ROWS[family][name]
    assert all(task.score(each.demonstration, each) == 1 for each in questions)


@needs_data
@pytest.mark.parametrize(("family", "name"), [each for each in FILES if each[1] in NUM_OPTIONS])
def test_every_row_of_choices_is_taken_apart_without_rest(family: str, name: str) -> None:
    found = set()
    with (DATA / family / "test" / f"{name}.jsonl.gz").open("rb") as file:
        for question in task_named(name).questions(file):
            assert question.choices is not None
            options = question.choices.options
            found.add(len(options))
            prompt = squeezed(question.turns[-1].content)
            if name not in {"boolq", "hellaswag", "winogrande"}:  # which change the text
                assert all(squeezed(option.text) in prompt for option in options)
            assert all(option.continuation.strip() for option in options)
            if name != "aqua":  # its options belong to the context
                assert not any(LABEL.search(each.context + each.continuation) for each in options)
    assert found == NUM_OPTIONS[name]


def squeezed(text: str) -> str:
    return " ".join(text.split())

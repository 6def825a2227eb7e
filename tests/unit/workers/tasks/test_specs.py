import subprocess
import sys

import pytest
from pydantic import TypeAdapter, ValidationError

from workers.tasks.patterns import MAX_PATTERN_CHARS
from workers.tasks.registry import TASKS, UnknownTaskError, scorer_of, task_named, task_of_own_rows
from workers.tasks.specs import ScorerSpec, TaskName

SPEC: TypeAdapter[ScorerSpec] = TypeAdapter(ScorerSpec)


@pytest.mark.parametrize(
    ("spec", "answer", "gold", "score"),
    [
        ({"kind": "number"}, "so it is 12.", "12", 1),
        ({"kind": "number", "tolerance": 0.5}, "12.4", "12", 1),
        ({"kind": "letter"}, "The answer is (E)", "E", 1),
        ({"kind": "letter", "letters": "ABCD"}, "The answer is (E)", "D", 0),
        ({"kind": "option", "options": ["spam", "ham"]}, "It is Spam.", "spam", 1),
        ({"kind": "exact"}, "Paris", "Paris", 1),
        ({"kind": "exact", "ignore_case": True}, "paris", "Paris", 1),
        ({"kind": "regex", "pattern": r"\d+"}, "it is 12", "12", 1),
        ({"kind": "f1"}, "in Paris", "Paris", 2 / 3),
    ],
)
def test_a_scorer_is_chosen_by_name(
    spec: dict[str, object], answer: str, gold: str, score: float
) -> None:
    scorer = scorer_of(SPEC.validate_python(spec))

    assert scorer.score(answer, gold) == pytest.approx(score)
    assert scorer.metric == ("f1" if spec["kind"] == "f1" else "accuracy")


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"kind": "rouge"}, "'rouge'.*'number', 'letter', 'option', 'exact', 'regex', 'f1'"),
        ({"kind": "f1", "ignore_case": True}, "ignore_case"),
        ({"kind": "number", "tolerance": -1}, "tolerance"),
        ({"kind": "number", "tolerance": "inf"}, "tolerance"),
        ({"kind": "letter", "letters": "AAB"}, "'AAB' names a letter twice"),
        ({"kind": "letter", "letters": "abc"}, "letters"),
        ({"kind": "option"}, "options"),
        ({"kind": "option", "options": ["yes"]}, "options"),
        ({"kind": "option", "options": ["yes", ""]}, "options"),
        ({"kind": "option", "options": ["Yes", "yes "]}, "differ in case or white space alone"),
        ({"kind": "option", "options": ["level 1", "level1"]}, "differ in case or white space"),
        ({"kind": "regex"}, "pattern"),
        ({"kind": "regex", "pattern": "(a"}, r"'\(a' is no pattern here: missing \)"),
        ({"kind": "regex", "pattern": "(a)"}, r"without name; write \(\?P<answer>…\)"),
        ({"kind": "regex", "pattern": r"(?<=a)b"}, "no lookaround"),
        ({"kind": "regex", "pattern": r"a{1001}"}, "repetition size"),
        ({"kind": "regex", "pattern": "a" * (MAX_PATTERN_CHARS + 1)}, "at most 1000 characters"),
    ],
)
def test_a_wrong_scorer_is_refused_with_what_to_do(spec: dict[str, object], problem: str) -> None:
    with pytest.raises(ValidationError, match=f"(?s){problem}"):
        SPEC.validate_python(spec)


def test_every_benchmark_has_one_task_of_its_name() -> None:
    assert set(TASKS) == set(TaskName)
    assert all(task.name == name for name, task in TASKS.items())
    assert all(task_named(name) is task for name, task in TASKS.items())
    assert all(bool(task.likelihood_metrics) == bool(task.parse_choices) for task in TASKS.values())


def test_an_unknown_benchmark_is_refused_with_the_names_of_all() -> None:
    with pytest.raises(UnknownTaskError, match=r"no task 'mmlu'; the tasks are gsm8k, .*boolq"):
        task_named("mmlu")


def test_own_rows_are_a_task_with_the_scorer_asked_for() -> None:
    task = task_of_own_rows("support", SPEC.validate_python({"kind": "f1"}))
    question = task.question({"prompt": "Where is the Louvre?", "answer": ["Paris", "in Paris"]})

    assert task.score("In Paris!", question) == 1
    assert task.metrics == ("f1",)


def test_tasks_are_importable_without_torch_and_ray() -> None:
    code = "import sys, workers.tasks.registry; print({'torch', 'ray', 'pyarrow'} & {*sys.modules})"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "set()"

"""Every benchmark by its name, and the task that a user's own rows and scorer make."""

from collections.abc import Mapping
from types import MappingProxyType

from workers.tasks.arithmetic import ARITHMETIC_TASKS
from workers.tasks.commonsense import COMMONSENSE_TASKS
from workers.tasks.letters import LetterScorer
from workers.tasks.numbers import NumberScorer
from workers.tasks.option_words import OptionScorer
from workers.tasks.specs import (
    ExactScorerSpec,
    F1ScorerSpec,
    LetterScorerSpec,
    NumberScorerSpec,
    OptionScorerSpec,
    RegexScorerSpec,
    ScorerSpec,
    TaskName,
)
from workers.tasks.task import Scorer, Task
from workers.tasks.text_scorers import ExactScorer, F1Scorer, RegexScorer

TASKS: Mapping[TaskName, Task] = MappingProxyType(
    {TaskName(task.name): task for task in (*ARITHMETIC_TASKS, *COMMONSENSE_TASKS)}
)
"""The benchmarks."""


class UnknownTaskError(ValueError):
    """No benchmark has this name."""


def task_named(name: str) -> Task:
    """The benchmark of a name.

    Raises:
        UnknownTaskError: If there is none.
    """
    try:
        return TASKS[TaskName(name)]
    except ValueError:
        raise UnknownTaskError(
            f"there is no task {name!r}; the tasks are {', '.join(TASKS)}; for rows of your own "
            "name a scorer instead"
        ) from None


def task_of_own_rows(name: str, scorer: ScorerSpec) -> Task:
    """The task of a user's own rows, which are scored as the user asks."""
    return Task(name, scorer_of(scorer))


def scorer_of(spec: ScorerSpec) -> Scorer:
    """The scorer that a user asks for."""
    match spec:
        case NumberScorerSpec():
            return NumberScorer(spec.tolerance)
        case LetterScorerSpec():
            return LetterScorer(spec.letters)
        case OptionScorerSpec():
            return OptionScorer(spec.options)
        case ExactScorerSpec():
            return ExactScorer(spec.ignore_case, spec.ignore_punctuation, spec.ignore_articles)
        case RegexScorerSpec():
            return RegexScorer(spec.pattern, spec.ignore_case)
        case F1ScorerSpec():
            return F1Scorer()

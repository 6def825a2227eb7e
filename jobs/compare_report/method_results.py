"""What the runs of a comparison hand to its analysis, and the check that all were asked alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from workers.tasks.accuracy import AnswerMetric

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

_FEWEST_ROWS = 2


class DifferentQuestionsError(ValueError):
    """Scores are not of the same questions, so that nothing pairs them."""


@dataclass(frozen=True)
class TaskScores:
    """How one adapter did on one task, row by row."""

    question_digest: str
    """Of the questions and gold answers in their order: rows pair only where digests agree."""

    scores: tuple[float, ...]
    """How right each answer is, from 0 to 1."""

    nlls: tuple[float, ...] = ()
    """Negative log-likelihood of each row's gold answer (nats a token, the mean over its tokens);
    none where it was not measured."""

    metric: AnswerMetric = "accuracy"
    """What the mean of the scores is called."""


@dataclass(frozen=True)
class SeedRun:
    """One trained adapter and what it answered; or the base model."""

    seed: int | None
    """Of its training; None of the base model."""

    tasks: Mapping[str, TaskScores]

    train_seconds: float = 0.0
    """Time of its training at the chosen learning rate."""

    peak_memory_bytes: int | None = None
    """Most memory that its training took on one device, where it was measured."""


@dataclass(frozen=True)
class MethodResult:
    """All runs of one method."""

    method: str

    adapter: str
    """The adapter as `jobs.method_specs.adapter_in_words` tells it."""

    runs: tuple[SeedRun, ...]
    """One a seed; one for all of the base model."""

    learning_rate: float | None = None
    """The one chosen; None of the base model."""

    validation_nlls: Mapping[float, tuple[float, ...]] | None = None
    """Of each rate tried, the validation rows' negative log-likelihood by seed (nats a token); not
    finite where the training diverged."""

    num_trainable_parameters: int = 0


def require_same_questions(results: Sequence[MethodResult]) -> None:
    """Check that every run answered the same tasks, and the same questions of each.

    Raises:
        DifferentQuestionsError: If one did not, or a task has too few rows to pair.
        ValueError: If a method has no run, a seed twice, or scores that are no numbers.
    """
    expected: Mapping[str, TaskScores] | None = None
    for result in results:
        seeds = [run.seed for run in result.runs]
        if not seeds or len(set(seeds)) < len(seeds) or (None in seeds and len(seeds) > 1):
            raise ValueError(f"{result.method}: give one run for each seed, or one without")
        for run in result.runs:
            expected = run.tasks if expected is None else expected
            _require_same_tasks(f"{result.method}, seed {run.seed}", run.tasks, expected)


def require_same_rows(given: TaskScores, expected: TaskScores, where: str) -> None:
    """Check that two hold scores of the same questions.

    Raises:
        DifferentQuestionsError: If they do not.
    """
    if given.question_digest != expected.question_digest:
        raise DifferentQuestionsError(
            f"{where}: the questions have digest {given.question_digest}, not "
            f"{expected.question_digest}; score both on the same rows"
        )
    if len(given.scores) != len(expected.scores):
        raise DifferentQuestionsError(
            f"{where}: {len(given.scores)} scores for {len(expected.scores)} questions; score all"
        )


def matrix(result: MethodResult, task: str, measure: str, seeds: Sequence[int | None]) -> Array:
    """Scores, or negative log-likelihoods, of the runs of some seeds.

    Args:
        result: A method's; a run without seed stands for every seed.
        task: Name of the task.
        measure: "score" or "nll".
        seeds: In the order of the rows of the answer.

    Returns:
        (num_seeds, num_rows)
    """
    by_seed = {run.seed: run.tasks[task] for run in result.runs}
    found = [by_seed[seed] if seed in by_seed else by_seed[None] for seed in seeds]
    return np.array([each.scores if measure == "score" else each.nlls for each in found])


def common_seeds(first: MethodResult, second: MethodResult) -> list[int | None]:
    """Seeds that both methods have runs of; a run without seed goes with any."""
    ours, theirs = ([run.seed for run in result.runs] for result in (first, second))
    if ours == [None] or theirs == [None]:
        return theirs if ours == [None] else ours
    return [seed for seed in ours if seed in theirs]


def _require_same_tasks(
    where: str, given: Mapping[str, TaskScores], expected: Mapping[str, TaskScores]
) -> None:
    if given.keys() != expected.keys():
        raise DifferentQuestionsError(
            f"{where}: has tasks {', '.join(given)}, not {', '.join(expected)}; ask all of all"
        )
    for task, scores in given.items():
        place = f"{where}, {task}"
        require_same_rows(scores, expected[task], place)
        if len(scores.scores) < _FEWEST_ROWS:
            raise DifferentQuestionsError(f"{place}: one question cannot be compared; give more")
        if len(scores.nlls) != len(expected[task].nlls) or (
            scores.nlls and len(scores.nlls) != len(scores.scores)
        ):
            raise ValueError(f"{place}: negative log-likelihoods of all rows and runs, or of none")
        if not np.isfinite([*scores.scores, *scores.nlls]).all():
            raise ValueError(f"{place}: a score or a negative log-likelihood is not finite")

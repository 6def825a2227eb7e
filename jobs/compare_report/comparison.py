"""Every method beside the reference: on each task and on average, by score and by likelihood."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np

from jobs.compare_report.difference import (
    LEVEL,
    Answers,
    PairedDifference,
    seed_luck,
)
from jobs.compare_report.method_results import Array, MethodResult, common_seeds, matrix
from jobs.compare_report.multiple import detectable_difference, holm
from jobs.compare_report.sign_flip import exact_sign_flip, mcnemar, sampled_sign_flip
from workers.document import Document

Measure = Literal["score", "nll"]
"""How right the answers are, or the negative log-likelihood of the gold ones."""


class Verdict(StrEnum):
    """What the data say of a method beside the reference."""

    BETTER = "better"
    WORSE = "worse"
    NOT_SHOWN = "no difference shown"


class SeedTest(Document):
    """McNemar's exact test of two runs of one seed, on one task."""

    seed: int | None
    """None where neither method has one."""

    num_only_method: int
    """Questions that only the method answers right."""

    num_only_reference: int
    """Questions that only the reference answers right."""

    p_value: float
    """Of these two adapters alone, not corrected."""


class MethodDifference(Document):
    """A method less the reference."""

    method: str
    reference: str

    task: str | None
    """None: the average over tasks."""

    measure: Measure

    estimate: float
    """Difference of the means; points of 100 are 0.01. Of likelihoods less is better."""

    low: float
    """Lower end of its 95 % bootstrap interval over rows and seeds, not corrected."""

    high: float
    """Upper end."""

    holds_for: Literal["methods", "adapters"]
    """Whether seeds are accounted for; if not, it speaks of these two adapters alone."""

    p_rows: float
    """Sign-flip test over rows: would other questions show a difference of these adapters?"""

    p_seeds: float | None
    """Test over rows and seeds: would other seeds? None where no method has two."""

    p_adjusted: float
    """The larger of the two, corrected after Holm over all methods and tasks."""

    verdict: Verdict

    detectable: float | None
    """Smallest true difference that would have been shown in four cases of five; None if none."""

    seed_tests: tuple[SeedTest, ...] = ()
    """Of each seed, where scores are right or wrong."""


def compare(results: Sequence[MethodResult], reference: str) -> tuple[MethodDifference, ...]:
    """Compare every method with the reference.

    Tasks and averages, scores and likelihoods are four families; Holm's correction runs over the
    methods and tasks of each.

    Args:
        results: Of all methods, on the same questions; see `require_same_questions`.
        reference: Name of one of them.
    """
    tasks = tuple(results[0].runs[0].tasks)
    has_nll = all(scores.nlls for scores in results[0].runs[0].tasks.values())
    measures: tuple[Measure, ...] = ("score", "nll") if has_nll else ("score",)
    families: list[list[tuple[str, ...]]] = [[(task,) for task in tasks]]
    if len(tasks) > 1:
        families.append([tasks])
    return tuple(
        each
        for measure in measures
        for family in families
        for each in _family(results, reference, measure, family)
    )


def answers(result: MethodResult, tasks: Sequence[str], measure: Measure) -> Answers:
    """What is measured of a method on some tasks."""
    seeds = [run.seed for run in result.runs]
    return Answers(
        tuple(matrix(result, task, measure, seeds) for task in tasks),
        is_trained=seeds != [None],
    )


def _family(
    results: Sequence[MethodResult],
    reference: str,
    measure: Measure,
    members: Sequence[tuple[str, ...]],
) -> list[MethodDifference]:
    """Comparisons that are corrected together."""
    num_comparisons = len(members) * (len(results) - 1)
    raw = [
        each
        for tasks in members
        for each in _on_tasks(results, reference, measure, tasks, num_comparisons)
    ]
    corrected = holm([each.p_adjusted for each in raw])
    return [
        each.model_copy(update={"p_adjusted": p_value, "verdict": _verdict(each, p_value)})
        for each, p_value in zip(raw, corrected, strict=True)
    ]


@dataclass(frozen=True)
class _Side:
    result: MethodResult
    answers: Answers


def _on_tasks(
    results: Sequence[MethodResult],
    reference: str,
    measure: Measure,
    tasks: tuple[str, ...],
    num_comparisons: int,
) -> list[MethodDifference]:
    """The methods on one task, or on the average of several, before they are corrected."""
    sides = [_Side(result, answers(result, tasks, measure)) for result in results]
    luck = seed_luck([side.answers for side in sides])
    (against,) = [side for side in sides if side.result.method == reference]
    found = []
    for side in sides:
        if side is against:
            continue
        paired = PairedDifference(side.answers, against.answers, luck)
        step = _lattice_step(side.answers, against.answers)
        smallest = detectable_difference(
            paired.difference,
            num_comparisons,
            paired.num_rows,
            least_step=step / paired.num_rows,
        )
        compared = _compared(side, against, paired, measure, tasks, step)
        is_possible = math.isfinite(smallest) and (measure == "nll" or smallest <= 1)
        update = {"detectable": smallest if is_possible else None}
        found.append(compared.model_copy(update=update))
    return found


def _compared(
    side: _Side,
    against: _Side,
    paired: PairedDifference,
    measure: Measure,
    tasks: tuple[str, ...],
    step: float,
) -> MethodDifference:
    difference = paired.difference
    low, high = paired.bootstrap_interval()
    p_rows = _p_of_rows(paired.row_differences, step)
    p_seeds = difference.p_value if difference.freedom else None
    return MethodDifference(
        method=side.result.method,
        reference=against.result.method,
        task=tasks[0] if len(tasks) == 1 else None,
        measure=measure,
        estimate=difference.estimate,
        low=low,
        high=high,
        holds_for="adapters" if p_seeds is None else "methods",
        p_rows=p_rows,
        p_seeds=p_seeds,
        p_adjusted=max(p_rows, p_seeds or 0.0),
        verdict=Verdict.NOT_SHOWN,
        detectable=None,
        seed_tests=_seed_tests(side.result, against.result, tasks[0]) if step else (),
    )


def _verdict(difference: MethodDifference, p_value: float) -> Verdict:
    if p_value > 1 - LEVEL or difference.estimate == 0:
        return Verdict.NOT_SHOWN
    is_better = (difference.estimate > 0) == (difference.measure == "score")
    return Verdict.BETTER if is_better else Verdict.WORSE


def _lattice_step(first: Answers, second: Answers) -> float:
    """What row differences are whole multiples of, if every score is right or wrong; else 0."""
    both = (*first.tasks, *second.tasks)
    if len(first.tasks) > 1 or not all(np.isin(task, (0, 1)).all() for task in both):
        return 0.0
    return 1 / math.lcm(first.num_seeds, second.num_seeds)


def _p_of_rows(tasks: Sequence[Array], step: float) -> float:
    """Sign-flip test: exact where differences are whole multiples of a step, else by draws."""
    if step:
        return exact_sign_flip(np.rint(tasks[0] / step).astype(int).tolist())
    return sampled_sign_flip(np.concatenate([rows / rows.size for rows in tasks]))


def _seed_tests(first: MethodResult, second: MethodResult, task: str) -> tuple[SeedTest, ...]:
    tests = []
    for seed in common_seeds(first, second):
        ours, theirs = (matrix(each, task, "score", [seed])[0] for each in (first, second))
        better, worse = int((ours > theirs).sum()), int((ours < theirs).sum())
        tests.append(
            SeedTest(
                seed=seed,
                num_only_method=better,
                num_only_reference=worse,
                p_value=mcnemar(better, worse),
            )
        )
    return tuple(tests)

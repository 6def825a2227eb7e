"""What became of one method: means over its seeds, its learning rate, and what it cost."""

import math
from collections.abc import Sequence
from statistics import fmean

from jobs.compare_report.comparison import Measure, answers
from jobs.compare_report.difference import rounded_alike
from jobs.compare_report.method_results import MethodResult
from jobs.compare_report.seeds_mean import SeedsMean, seeds_mean
from workers.document import Document
from workers.tasks.accuracy import summarize


class TriedRate(Document):
    """A learning rate that was tried."""

    learning_rate: float

    nll: float | None
    """Mean over seeds of the validation rows' negative log-likelihood (nats an answer token); None
    where the training diverged."""


class MethodSummary(Document):
    """What became of one method."""

    method: str

    adapter: str
    """In few words."""

    learning_rate: float | None
    """The one chosen; None of the base model."""

    rates_tried: tuple[TriedRate, ...]
    """By rising rate."""

    is_rate_at_edge: bool
    """Whether the chosen rate is the least or largest of several: one beyond might do better."""

    num_trainable_parameters: int

    train_seconds: float
    """Mean time of a training at the chosen rate."""

    peak_memory_bytes: int | None
    """Most memory on one device of any of them; None where it was not measured."""

    seeds: tuple[int, ...]
    """Of its trainings; none of the base model."""

    scores: dict[str, SeedsMean]
    """By task."""

    nlls: dict[str, SeedsMean]
    """Negative log-likelihood of the gold answers by task (nats a token); empty if not measured."""

    average_score: SeedsMean
    """Mean over tasks, each counting alike."""

    average_nll: SeedsMean | None

    rank_by_score: int
    """Place by the average score, from 1; no difference need be shown for it."""

    rank_by_nll: int | None
    """Place by the average negative log-likelihood."""


def summaries(results: Sequence[MethodResult]) -> tuple[MethodSummary, ...]:
    """A summary of each method, with its places; equals share the better one."""
    found = [_summary(result) for result in results]
    scores = [summary.average_score.value for summary in found]
    nlls = [summary.average_nll.value for summary in found if summary.average_nll is not None]
    return tuple(
        summary.model_copy(
            update={
                "rank_by_score": 1 + sum(other > summary.average_score.value for other in scores),
                "rank_by_nll": summary.average_nll
                and 1 + sum(other < summary.average_nll.value for other in nlls),
            }
        )
        for summary in found
    )


def _summary(result: MethodResult) -> MethodSummary:
    tasks = list(result.runs[0].tasks)
    has_nll = all(scores.nlls for scores in result.runs[0].tasks.values())
    nlls = {task: _on_task(result, task, "nll") for task in tasks} if has_nll else {}
    tried = sorted((result.validation_nlls or {}).items())
    rates = [rate for rate, _ in tried]
    memory = [run.peak_memory_bytes for run in result.runs if run.peak_memory_bytes is not None]
    return MethodSummary(
        method=result.method,
        adapter=result.adapter,
        learning_rate=result.learning_rate,
        rates_tried=tuple(TriedRate(learning_rate=rate, nll=_nll(nlls)) for rate, nlls in tried),
        is_rate_at_edge=len(rates) > 1 and result.learning_rate in (rates[0], rates[-1]),
        num_trainable_parameters=result.num_trainable_parameters,
        train_seconds=fmean(run.train_seconds for run in result.runs),
        peak_memory_bytes=max(memory, default=None),
        seeds=tuple(run.seed for run in result.runs if run.seed is not None),
        scores={task: _on_task(result, task, "score") for task in tasks},
        nlls=nlls,
        average_score=_average(result, tasks, "score"),
        average_nll=_average(result, tasks, "nll") if has_nll else None,
        rank_by_score=1,
        rank_by_nll=None,
    )


def _on_task(result: MethodResult, task: str, measure: Measure) -> SeedsMean:
    (rows,) = answers(result, [task], measure).tasks
    over_questions = None
    if measure == "score":
        over_questions = summarize(rows.mean(axis=0).tolist()).interval
    return seeds_mean(rounded_alike(rows, axis=1).tolist(), over_questions)


def _average(result: MethodResult, tasks: Sequence[str], measure: Measure) -> SeedsMean:
    return seeds_mean(answers(result, tasks, measure).seed_means.tolist())


def _nll(nlls: Sequence[float]) -> float | None:
    mean = fmean(nlls) if nlls else math.nan
    return mean if math.isfinite(mean) else None

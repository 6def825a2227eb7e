"""What an evaluation comes to: a score with its interval for each task and model, and averages."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from pydantic import Field

from workers.document import Document
from workers.predictions import Prediction
from workers.tasks.accuracy import summarize
from workers.tasks.task import Metric


class TaskScore(Document):
    """How well one model does on one task, by one metric."""

    task: str
    """Name of the benchmark."""

    model: str
    """The adapter's name; "__base__" for the base model alone."""

    metric: Metric
    """What is measured."""

    value: float = Field(ge=0, le=1)
    """Share of right answers, or mean F1."""

    interval: tuple[float, float]
    """95 % interval: Wilson's of a share, a normal one of a mean."""

    num_rows: int = Field(ge=1)
    """Rows that were answered."""

    share_unreadable: float | None = Field(ge=0, le=1)
    """Share of answers in which nothing was found to score; None where options were scored."""

    share_cut: float | None = Field(ge=0, le=1)
    """Share of answers that were cut off at the bound on tokens; None where options were scored."""


class MacroAverage(Document):
    """The plain mean of one model's scores over the tasks that have the metric."""

    model: str
    """The adapter's name; "__base__" for the base model alone."""

    metric: Metric
    """What is measured."""

    value: float = Field(ge=0, le=1)
    """The mean; every task counts alike."""

    num_tasks: int = Field(ge=1)
    """Tasks in the mean."""


class EvaluationResult(Document):
    """What an evaluation, or a shard of one, comes to."""

    scores: tuple[TaskScore, ...]
    """By task, model and metric."""

    macro_averages: tuple[MacroAverage, ...]
    """By model and metric."""

    num_rows: int = Field(ge=0)
    """Rows that were answered, counted for each model, earlier attempts included."""

    is_complete: bool
    """Whether every row of the shard is answered; not if it was asked to stop."""

    tokens_per_s: float | None = Field(ge=0)
    """New tokens, or tokens of options, a second in this attempt; None if it answered nothing."""


def summarize_predictions(
    predictions: Sequence[Prediction], *, is_complete: bool, tokens_per_s: float | None = None
) -> EvaluationResult:
    """Sum predictions up, such as the merged ones of all shards.

    Args:
        predictions: At most one for each task, model and row.
        is_complete: Whether no row is missing.
        tokens_per_s: As measured; of shards that ran at the same time, the sum.
    """
    groups: dict[tuple[str, str, Metric], list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        for metric in prediction.scores:
            groups[prediction.task, prediction.model, metric].append(prediction)
    scores = tuple(_score(*key, groups[key]) for key in sorted(groups))
    values: dict[tuple[str, Metric], list[float]] = defaultdict(list)
    for score in scores:
        values[score.model, score.metric].append(score.value)
    return EvaluationResult(
        scores=scores,
        macro_averages=tuple(
            MacroAverage(
                model=model,
                metric=metric,
                value=fmean(values[model, metric]),
                num_tasks=len(values[model, metric]),
            )
            for model, metric in sorted(values)
        ),
        num_rows=len(predictions),
        is_complete=is_complete,
        tokens_per_s=tokens_per_s,
    )


def _score(task: str, model: str, metric: Metric, predictions: Sequence[Prediction]) -> TaskScore:
    summary = summarize([prediction.scores[metric] for prediction in predictions])
    answered = [prediction for prediction in predictions if prediction.mode == "generation"]
    return TaskScore(
        task=task,
        model=model,
        metric=metric,
        value=summary.value,
        interval=summary.interval,
        num_rows=summary.num_rows,
        share_unreadable=_share([each.extracted is None for each in answered]),
        share_cut=_share([each.stop_reason == "length" for each in answered]),
    )


def _share(facts: Sequence[bool]) -> float | None:
    return fmean(facts) if facts else None

"""An evaluation's report: what was asked of whom, the scores, and what they led to."""

from collections.abc import Sequence

from jobs.evaluate_specs import EvaluateSpec
from jobs.evaluation.pins import Pins
from jobs.evaluation.promotion import Promotion
from jobs.evaluation.scores import MAIN_METRICS, task_scores
from workers.document import Document
from workers.evaluation_result import EvaluationResult, MacroAverage, summarize_predictions
from workers.predictions import Prediction

_MOST_CHARS = 400
_NAMED_MODELS = 3


class AskedTask(Document):
    """A task, as it was asked."""

    name: str
    """What the user calls it."""

    num_rows: int
    """Questions."""

    question_digest: str
    """Of questions and gold answers: scores pair only where digests agree."""


class EvaluateReport(Document):
    """Everything that an evaluation found."""

    spec: EvaluateSpec
    """What was asked for."""

    pins: Pins
    """What its references named."""

    tasks: tuple[AskedTask, ...]
    """In the order of the spec."""

    result: EvaluationResult
    """Scores with intervals, and averages."""

    promotion: Promotion | None
    """What became of the alias; None if none was asked for."""

    summary: str
    """The outcome in a line."""


def build_report(
    spec: EvaluateSpec,
    pins: Pins,
    predictions: Sequence[Prediction],
    promotion: Promotion | None,
    tokens_per_s: float | None,
) -> EvaluateReport:
    """Sum an evaluation up.

    Args:
        spec: What was asked for.
        pins: What its references named.
        predictions: All of them.
        promotion: What became of the alias.
        tokens_per_s: As measured, over all workers.
    """
    result = summarize_predictions(predictions, is_complete=True, tokens_per_s=tokens_per_s)
    asked = task_scores(predictions)[next(iter(pins.models))]
    tasks = tuple(
        AskedTask(
            name=task.name,
            num_rows=len(asked[task.name].scores),
            question_digest=asked[task.name].question_digest,
        )
        for task in spec.tasks
    )
    return EvaluateReport(
        spec=spec,
        pins=pins,
        tasks=tasks,
        result=result,
        promotion=promotion,
        summary=summary(result.macro_averages, tasks, promotion),
    )


def summary(
    averages: Sequence[MacroAverage], tasks: Sequence[AskedTask], promotion: Promotion | None
) -> str:
    """The outcome in a line: the best models by the first metric, and what became of the alias."""
    metric = next(each for each in MAIN_METRICS if any(a.metric == each for a in averages))
    ranked = sorted((a for a in averages if a.metric == metric), key=lambda each: -each.value)
    named = ", ".join(f"{each.model} {100 * each.value:.1f} %" for each in ranked[:_NAMED_MODELS])
    more = f" and {len(ranked) - _NAMED_MODELS} more" if len(ranked) > _NAMED_MODELS else ""
    num_tasks = ranked[0].num_tasks
    where = tasks[0].name if len(tasks) == 1 else f"average over {num_tasks} tasks"
    num_rows = sum(task.num_rows for task in tasks)
    text = f"{metric} on {where} ({num_rows} rows): {named}{more}."
    if promotion is not None:
        text += f" {promotion.sentence}"
    return text if len(text) <= _MOST_CHARS else text[: _MOST_CHARS - 1] + "…"

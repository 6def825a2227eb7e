"""What models scored, row by row, for tests that pair rows."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from jobs.compare_report.method_results import TaskScores
from workers.predictions import Prediction, digest_of, questions_digest
from workers.tasks.task import Metric

MAIN_METRICS: tuple[Metric, ...] = ("accuracy", "f1", "acc")
"""Of the metrics of a prediction, the first of these is what models are judged by."""


def main_metric(prediction: Prediction) -> Metric:
    """The metric by which a prediction's model is judged."""
    return next(metric for metric in MAIN_METRICS if metric in prediction.scores)


def task_scores(predictions: Sequence[Prediction]) -> dict[str, dict[str, TaskScores]]:
    """Scores by model and task, rows in their order.

    Args:
        predictions: In order of row, with scores.
    """
    rows: dict[str, dict[str, list[Prediction]]] = defaultdict(lambda: defaultdict(list))
    for prediction in predictions:
        rows[prediction.model][prediction.task].append(prediction)
    return {
        model: {task: _of_task(found) for task, found in tasks.items()}
        for model, tasks in rows.items()
    }


def pooled(tasks: Mapping[str, TaskScores]) -> TaskScores:
    """The rows of all tasks as those of one."""
    names = sorted(tasks)
    return TaskScores(
        question_digest=digest_of(*(tasks[name].question_digest for name in names)),
        scores=tuple(score for name in names for score in tasks[name].scores),
    )


def _of_task(predictions: Sequence[Prediction]) -> TaskScores:
    metric = main_metric(predictions[0])
    return TaskScores(
        question_digest=questions_digest([each.row_digest for each in predictions]),
        scores=tuple(each.scores[metric] for each in predictions),
        metric="f1" if metric == "f1" else "accuracy",
    )

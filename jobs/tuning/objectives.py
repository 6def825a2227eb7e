"""What a trial is judged by, from what its trainings came to."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.objective_specs import ObjectiveMetric
from jobs.search_specs import SearchSpec


def objectives_of(
    spec: SearchSpec, outcome: Mapping[str, Any], of_tasks: Mapping[str, float] | None = None
) -> dict[str, float]:
    """The objectives of one training, by metric.

    Args:
        spec: Names them.
        outcome: Fields of `workers.train_loop.TrainResult`.
        of_tasks: Those that answers to tasks tell.
    """
    measured: dict[str, Any] = {
        ObjectiveMetric.EVAL_LOSS: outcome["eval_loss"],
        ObjectiveMetric.TRAIN_LOSS: outcome["train_loss"],
        ObjectiveMetric.NUM_PARAMETERS: outcome["num_trainable_parameters"],
        ObjectiveMetric.SECONDS_A_STEP: outcome["seconds"] / outcome["steps"],
    } | dict(of_tasks or {})
    return {
        str(objective.metric): float(measured[objective.metric]) for objective in spec.objectives
    }


def means_and_errors(
    objectives: Sequence[Mapping[str, float]],
) -> tuple[dict[str, float], dict[str, float]]:
    """Mean over seeds and its standard error by metric; no error of one seed."""
    means, errors = {}, {}
    for metric in objectives[0]:
        values = [each[metric] for each in objectives]
        means[metric] = statistics.fmean(values)
        if len(values) > 1:
            errors[metric] = statistics.stdev(values) / math.sqrt(len(values))
    return means, errors

"""The plots that a search has enough trials for."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from jobs.objective_specs import ObjectiveMetric
from jobs.plot import Plot
from jobs.search_report.importance import Importance
from jobs.search_report.plots.field_axis import FieldAxis, searched_fields
from jobs.search_report.plots.heat_map import heat_map, panels
from jobs.search_report.plots.importance_bars import importance_bars
from jobs.search_report.plots.learning_curves import learning_curves
from jobs.search_report.plots.parallel_coordinates import parallel_coordinates
from jobs.search_report.plots.pareto_front import pareto_front
from jobs.search_report.trial_table import TrialRecord
from jobs.search_specs import SearchSpec
from workers.specs import RunMetric

_CURVES = (RunMetric.EVAL_LOSS, RunMetric.LOSS)


def plots(
    spec: SearchSpec, trials: Sequence[TrialRecord], importances: Sequence[Importance]
) -> list[Plot]:
    """Every plot that makes sense; one that has too few trials, or nothing to vary, is left out.

    Args:
        spec: What was searched.
        trials: As they are; a search that still runs has plots, too.
        importances: Of each objective, as the report has them.
    """
    axes = searched_fields(spec.space, trials)
    objective = spec.objectives[0]
    found = [parallel_coordinates(trials, axes, objective)]
    if both := _pair(axes, importances):
        found += [
            heat_map(trials, *both, objective),
            panels(trials, *both, objective),
        ]
    found += [learning_curves(trials, objective, metric) for metric in _CURVES]
    found.append(learning_curves(trials, objective, RunMetric.CURVATURE, is_log=True))
    found.append(importance_bars(importances, axes))
    for number, pair in enumerate(combinations(spec.objectives, 2)):
        cost, score = sorted(pair, key=lambda each: each.metric not in _COSTS)
        front = pareto_front(trials, cost, score)
        found.append(replace(front, name=f"{front.name}_{number + 1}") if front else None)
    return [plot for plot in found if plot is not None]


_COSTS = {ObjectiveMetric.NUM_PARAMETERS, ObjectiveMetric.SECONDS_A_STEP}
"""Objectives that go on the horizontal axis of a Pareto front."""


def _pair(
    axes: Mapping[str, FieldAxis], importances: Sequence[Importance]
) -> tuple[FieldAxis, FieldAxis] | None:
    """K and r if both are searched; else the two that matter most, numbers across."""
    ranked = [share.field for importance in importances[:1] for share in importance.fields]
    order = [*("adapter.curvature", "adapter.r"), *ranked, *axes]
    if not {"adapter.curvature", "adapter.r"} <= axes.keys():
        order = [*ranked, *axes]
    chosen = [axes[field] for field in dict.fromkeys(order) if field in axes][:2]
    if len(chosen) < 2:
        return None
    first, second = chosen
    return (first, second) if first.is_numeric else (second, first)

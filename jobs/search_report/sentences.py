"""What a search found, in sentences that claim no more than the trials show."""

from collections.abc import Mapping, Sequence

from jobs.objective_specs import ObjectiveSpec
from jobs.search_report.comparison import Comparison, Difference, Group
from jobs.search_report.importance import FieldShare, Importance, ShareDifference
from jobs.search_report.trial_table import TrialRecord
from jobs.search_report.value_labels import value_label
from jobs.search_space import Value

_CURVATURE = "adapter.curvature"
_OTHERS = ("training.learning_rate", "adapter.r")


def best_and_median(
    ranked: Sequence[TrialRecord], medians: Mapping[str, float], objective: ObjectiveSpec
) -> str:
    """The best trial beside the median one."""
    if not ranked:
        return "No trial has completed."
    metric, best = objective.metric, ranked[0]
    error = f" ± {best.errors[metric]:.2g}" if metric in best.errors else ""
    return (
        f"The best trial, {best.trial_id}, has {metric} {best.objectives[metric]:.4g}{error}; the "
        f"median of {len(ranked)} completed trials has {medians[metric]:.4g}."
    )


def shares(importance: Importance) -> str:
    """How much each field matters."""
    metric = importance.metric
    if importance.reason:
        return f"How much each field matters for {metric} is not known: {importance.reason}."
    level = f"{100 * importance.level:.0f} % interval "
    parts = []
    for index, share in enumerate(importance.fields):
        text = _percent(share, level if not index else "")
        shown = "" if share.low > 0 else ", no effect shown"
        parts.append(f"{share.field} {text}{shown}")
    clipped = (
        f" {importance.num_clipped} trials that went far astray count no more than the fence at "
        "three interquartile ranges."
        if importance.num_clipped
        else ""
    )
    return (
        f"Of the variance of {metric} among {importance.num_trials} completed trials, the fields "
        f"account for: {'; '.join(parts)}. Together they predict "
        f"{100 * (importance.explained or 0):.0f} % of it for trials not seen.{clipped}"
    )


def curvature_against_others(importance: Importance) -> list[str]:
    """Whether K matters more or less than learning rate and rank, as far as they are searched."""
    return [
        _which_matters_more(importance, difference, other)
        for other in _OTHERS
        for difference in importance.differences
        if {difference.field, difference.other} == {_CURVATURE, other}
    ]


def groups_compared(comparison: Comparison) -> list[str]:
    """Each difference of means, and the best of each group among equally many trials."""
    field, metric = comparison.field, comparison.metric
    if not comparison.differences:
        counts = ", ".join(
            f"{group.num_completed} with {value_label(group.value)}" for group in comparison.groups
        )
        return [f"{field} is not compared by {metric}: too few completed trials ({counts})."]
    sentences = [_difference(comparison, difference) for difference in comparison.differences]
    bests = "; ".join(_best(group) for group in comparison.groups if group.best is not None)
    sentences.append(
        f"At an equal budget of {comparison.num_at_equal_budget} completed trials, the best "
        f"{metric} to expect by {field}: {bests}."
    )
    if any(group.num_stopped for group in comparison.groups):
        counts = ", ".join(
            f"{group.num_stopped} with {value_label(group.value)}" for group in comparison.groups
        )
        sentences.append(f"Trials that were ended early are in no mean: {counts}.")
    return sentences


def _percent(share: FieldShare, level: str) -> str:
    return f"{100 * share.estimate:.0f} % ({level}{100 * share.low:.0f} to {100 * share.high:.0f})"


def _which_matters_more(importance: Importance, difference: ShareDifference, other: str) -> str:
    sign = 1 if difference.field == _CURVATURE else -1
    low, high = sorted((sign * difference.low, sign * difference.high))
    interval = (
        f"difference of the shares {100 * sign * difference.estimate:+.0f} points, "
        f"{100 * importance.level:.0f} % interval {100 * low:+.0f} to {100 * high:+.0f}"
    )
    if low <= 0 <= high:
        return (
            f"Between {_CURVATURE} and {other}, no difference shown in how much they matter for "
            f"{importance.metric} ({interval})."
        )
    word = "more" if low > 0 else "less"
    return f"{_CURVATURE} matters {word} than {other} for {importance.metric} ({interval})."


def _difference(comparison: Comparison, difference: Difference) -> str:
    pair = f"{value_label(difference.value)} and {value_label(difference.other)}"
    numbers = (
        f"difference of the means {difference.estimate:+.3g}, {100 * comparison.level:.0f} % "
        f"interval {difference.low:+.3g} to {difference.high:+.3g}"
    )
    if not difference.is_shown:
        return (
            f"{comparison.field}: no difference shown in {comparison.metric} between {pair} "
            f"({numbers})."
        )
    is_first = (difference.estimate < 0) == (comparison.mode == "min")
    better, worse = (
        (difference.value, difference.other) if is_first else (difference.other, difference.value)
    )
    return (
        f"{comparison.field}: {comparison.metric} is better {_with(better)} than {_with(worse)} "
        f"({numbers})."
    )


def _best(group: Group) -> str:
    return f"{group.best_at_equal_budget:.4g} {_with(group.value)} (best of all {group.best:.4g})"


def _with(value: Value) -> str:
    return f"with {value_label(value)}"

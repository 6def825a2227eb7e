"""Groups of trials that differ in one field, such as fixed and learned curvature, side by side."""

import json
import math
from collections.abc import Sequence
from itertools import combinations
from statistics import fmean, variance

from scipy import stats

from jobs.objective_specs import ObjectiveSpec
from jobs.search_report.trial_table import TrialRecord, completed, rank
from jobs.search_space import Value
from jobs.tickets import TrialState
from workers.document import Document

_LEVEL = 0.95
_FEWEST_TRIALS = 2


class Group(Document):
    """Trials with one value of the field."""

    value: Value
    """Theirs."""

    num_completed: int
    """Trials that count."""

    num_stopped: int
    """Trials that the search ended early, mostly as they were bad."""

    num_failed: int
    """Trials that failed, or ended with no finite objective."""

    steps: int
    """Optimizer steps of all of them: what the group cost."""

    seconds: float
    """Time of all of them."""

    mean: float | None
    """Mean objective of those that completed."""

    best: float | None
    """Best objective."""

    best_trial: str | None
    """Id of the trial that has it."""

    best_at_equal_budget: float | None
    """Expected best of as many trials, drawn from the group, as the smallest group completed."""


class Difference(Document):
    """Mean objective of `value` less that of `other`, with Welch's interval."""

    value: Value
    other: Value
    estimate: float
    low: float
    high: float

    @property
    def is_shown(self) -> bool:
        """Whether the interval excludes that there is none."""
        return self.low > 0 or self.high < 0


class Comparison(Document):
    """Groups by the values of one field."""

    field: str
    metric: str
    mode: str

    num_at_equal_budget: int
    """Trials of each group among which `best_at_equal_budget` is the best."""

    groups: tuple[Group, ...]
    """One for each value that occurs."""

    level: float
    """Coverage of all intervals together (Bonferroni)."""

    differences: tuple[Difference, ...]
    """Between each two groups of two completed trials or more."""


def compare_groups(
    trials: Sequence[TrialRecord], field: str, objective: ObjectiveSpec
) -> Comparison:
    """Compare the trials of each value of a boolean or categorical field.

    The groups differ in other fields, too, by the luck of the draw; the interval counts that as
    noise. Where an algorithm preferred one value, its mean profits from better draws as well.
    """
    members = _members(trials, field)
    sizes = [len(completed(group, [objective.metric])) for group in members]
    num_equal = min((size for size in sizes if size), default=0)
    samples = [
        (group[0].values[field], [trial.objectives[objective.metric] for trial in done])
        for group in members
        if len(done := completed(group, [objective.metric])) >= _FEWEST_TRIALS
    ]
    pairs = list(combinations(samples, 2))
    return Comparison(
        field=field,
        metric=objective.metric,
        mode=objective.mode,
        num_at_equal_budget=num_equal,
        groups=tuple(_group(group, field, objective, num_equal) for group in members),
        level=_LEVEL,
        differences=tuple(
            _welch(first, second, level=1 - (1 - _LEVEL) / len(pairs)) for first, second in pairs
        ),
    )


def expected_best(values: Sequence[float], num_drawn: int, mode: str) -> float:
    """Mean, over all draws of `num_drawn` of the values, of the best one drawn."""
    ordered = sorted(values, reverse=mode == "max")
    draws = math.comb(len(ordered), num_drawn)
    return sum(
        value * (math.comb(len(ordered) - 1 - i, num_drawn - 1) / draws)
        for i, value in enumerate(ordered)
    )


def _members(trials: Sequence[TrialRecord], field: str) -> list[list[TrialRecord]]:
    """Trials of each value; numbers rise, and false is before true."""
    groups: dict[str, list[TrialRecord]] = {}
    for trial in trials:
        groups.setdefault(json.dumps(trial.values[field]), []).append(trial)
    return [groups[key] for key in sorted(groups, key=lambda key: _place(json.loads(key), key))]


def _place(value: Value, key: str) -> tuple[float, str]:
    return (value, key) if isinstance(value, int | float) else (math.inf, key)


def _group(
    trials: Sequence[TrialRecord], field: str, objective: ObjectiveSpec, num_equal: int
) -> Group:
    ranked = rank(trials, [objective])
    values = [trial.objectives[objective.metric] for trial in ranked]
    num_ended = sum(trial.state in (TrialState.COMPLETED, TrialState.FAILED) for trial in trials)
    return Group(
        value=trials[0].values[field],
        num_completed=len(ranked),
        num_stopped=sum(trial.state is TrialState.STOPPED for trial in trials),
        num_failed=num_ended - len(ranked),
        steps=sum(trial.steps for trial in trials),
        seconds=sum(trial.seconds for trial in trials),
        mean=fmean(values) if values else None,
        best=values[0] if values else None,
        best_trial=ranked[0].trial_id if ranked else None,
        best_at_equal_budget=expected_best(values, num_equal, objective.mode) if values else None,
    )


def _welch(
    first: tuple[Value, list[float]], second: tuple[Value, list[float]], *, level: float
) -> Difference:
    """Welch 1947: unequal variances, degrees of freedom after Satterthwaite."""
    (value, xs), (other, ys) = first, second
    estimate = fmean(xs) - fmean(ys)
    parts = [variance(sample) / len(sample) for sample in (xs, ys)]
    if sum(parts) == 0:
        return Difference(value=value, other=other, estimate=estimate, low=estimate, high=estimate)
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(sample) - 1) for part, sample in zip(parts, (xs, ys), strict=True)
    )
    reach = float(stats.t.ppf((1 + level) / 2, freedom)) * math.sqrt(sum(parts))
    return Difference(
        value=value, other=other, estimate=estimate, low=estimate - reach, high=estimate + reach
    )

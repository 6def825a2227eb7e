"""What is known of each trial of a search, and which trials are the best."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jobs.objective_specs import ObjectiveSpec
from jobs.search_space import Value
from jobs.tickets import TrialState


@dataclass(frozen=True)
class TrialRecord:
    """One trial as its search left it."""

    trial_id: str
    """Such as "trial-0007"."""

    values: Mapping[str, Value]
    """Of each searched field, such as "adapter.curvature"."""

    state: TrialState
    """Where the trial stands."""

    objectives: Mapping[str, float] = field(default_factory=dict)
    """Mean over its seeds at its end, by metric; empty for a trial that failed."""

    errors: Mapping[str, float] = field(default_factory=dict)
    """Standard error over its seeds, by metric; empty with one seed."""

    curves: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    """(step, value) of each metric, such as "eval/loss"."""

    steps: int = 0
    """Optimizer steps that it did."""

    seconds: float = 0.0
    """Time that it took."""

    reason: str | None = None
    """Why it ended before its last step, or failed."""


def completed(trials: Sequence[TrialRecord], metrics: Sequence[str]) -> list[TrialRecord]:
    """Trials that can be compared: trained to their end, and finite in every one of `metrics`.

    A trial that was stopped early has a loss, but of fewer steps than the others: none here.
    """
    return [
        trial
        for trial in trials
        if trial.state is TrialState.COMPLETED
        and all(math.isfinite(trial.objectives.get(metric, math.nan)) for metric in metrics)
    ]


def rank(trials: Sequence[TrialRecord], objectives: Sequence[ObjectiveSpec]) -> list[TrialRecord]:
    """Completed trials, best first by the first objective; further ones decide between equals."""

    def badness(trial: TrialRecord) -> tuple[list[float], str]:
        return _costs(trial, objectives), trial.trial_id

    return sorted(completed(trials, [objective.metric for objective in objectives]), key=badness)


def pareto_set(
    trials: Sequence[TrialRecord], objectives: Sequence[ObjectiveSpec]
) -> list[TrialRecord]:
    """Completed trials that none beats in one objective without loss in another, in rank order."""
    ranked = rank(trials, objectives)
    costs = [_costs(trial, objectives) for trial in ranked]
    return [
        trial
        for trial, cost in zip(ranked, costs, strict=True)
        if not any(_dominates(other, cost) for other in costs)
    ]


def _costs(trial: TrialRecord, objectives: Sequence[ObjectiveSpec]) -> list[float]:
    """Objectives of a trial, turned so that less is better."""
    return [
        trial.objectives[objective.metric] * (1 if objective.mode == "min" else -1)
        for objective in objectives
    ]


def _dominates(cost: list[float], other: list[float]) -> bool:
    return cost != other and all(mine <= its for mine, its in zip(cost, other, strict=True))

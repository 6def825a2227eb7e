"""What a search found, as data and as a page to read."""

from collections import Counter
from collections.abc import Sequence
from statistics import median

from jobs.objective_specs import ObjectiveSpec
from jobs.search_report.comparison import Comparison, compare_groups
from jobs.search_report.importance import Importance, importance
from jobs.search_report.sentences import (
    best_and_median,
    curvature_against_others,
    groups_compared,
    shares,
)
from jobs.search_report.trial_table import TrialRecord, completed, pareto_set, rank
from jobs.search_space import Value
from jobs.search_specs import SearchSpec
from jobs.tickets import TrialState
from workers.document import Document

_NUM_BEST = 5
_LEARNED = "adapter.learn_curvature"


class TrialResult(Document):
    """A trial that completed."""

    trial_id: str
    """Such as "trial-0007"."""

    values: dict[str, Value]
    """Of each searched field."""

    objectives: dict[str, float]
    """Mean over its seeds, by metric."""

    errors: dict[str, float]
    """Standard error over its seeds, by metric; empty with one seed."""

    steps: int
    """Optimizer steps that it did."""

    seconds: float
    """Time that it took."""


class SearchReport(Document):
    """What a search found."""

    objectives: tuple[ObjectiveSpec, ...]
    """What was aimed at."""

    num_trials: dict[TrialState, int]
    """Trials by where they stand."""

    seconds: float
    """Time since the search began."""

    trial_seconds: float
    """Time that the trials took together."""

    best: tuple[TrialResult, ...]
    """The best trials by the first objective, the best first."""

    pareto: tuple[TrialResult, ...]
    """With several objectives: trials that none beats in one without loss in another."""

    medians: dict[str, float]
    """Objective of the median completed trial, by metric; empty if none completed."""

    importance: tuple[Importance, ...]
    """How much each field matters, for each objective."""

    comparisons: tuple[Comparison, ...]
    """Fixed against learned curvature, for each objective, if both were tried."""

    findings: tuple[str, ...]
    """The above in sentences."""


def build_report(spec: SearchSpec, trials: Sequence[TrialRecord], seconds: float) -> SearchReport:
    """Analyse a search that has ended, or one that still runs.

    Args:
        spec: What was asked for.
        trials: All trials so far.
        seconds: Time since the search began.
    """
    metrics = [objective.metric for objective in spec.objectives]
    ranked = rank(trials, spec.objectives)
    front = pareto_set(trials, spec.objectives) if len(metrics) > 1 else []
    importances = tuple(
        importance(trials, tuple(spec.space), objective) for objective in spec.objectives
    )
    tried = {str(trial.values[_LEARNED]) for trial in trials if _LEARNED in spec.space}
    comparisons = tuple(
        compare_groups(trials, _LEARNED, objective)
        for objective in spec.objectives
        if len(tried) > 1
    )
    medians: dict[str, float] = {
        metric: median(trial.objectives[metric] for trial in done)
        for metric in metrics
        if (done := completed(trials, [metric]))
    }
    findings = [best_and_median(ranked, medians, spec.objectives[0])]
    for each in importances:
        findings += [shares(each), *curvature_against_others(each)]
    findings += [sentence for each in comparisons for sentence in groups_compared(each)]
    return SearchReport(
        objectives=spec.objectives,
        num_trials=dict(Counter(trial.state for trial in trials)),
        seconds=seconds,
        trial_seconds=sum(trial.seconds for trial in trials),
        best=tuple(_result(trial) for trial in ranked[:_NUM_BEST]),
        pareto=tuple(_result(trial) for trial in front),
        medians=medians,
        importance=importances,
        comparisons=comparisons,
        findings=tuple(findings),
    )


def _result(trial: TrialRecord) -> TrialResult:
    return TrialResult(
        trial_id=trial.trial_id,
        values=dict(trial.values),
        objectives=dict(trial.objectives),
        errors=dict(trial.errors),
        steps=trial.steps,
        seconds=trial.seconds,
    )

"""How much each searched field matters for an objective, with an interval.

The share of a field is what the objective's out-of-bag prediction loses when that field alone is
taken from another trial: with bagged trees and independent draws, an estimate of its total Sobol
index, interactions included. fANOVA (Optuna's) asks the forest about itself, and so shares out the
noise as well: its importances add up to one even where no field has any effect. Here every trial is
predicted by trees that did not see it, so a field without effect has a share around zero, and one
can say that nothing was shown. The price: of few trials the trees learn a part of what there is to
learn, so that shares of tens of trials are rather too small than too large, and an interval is one
of what so many trials can show.

Sources: Breiman 2001, Random Forests (out-of-bag permutation); Gregorutti et al. 2017,
arXiv:1310.5726 (half the increase of the squared error is the numerator of the Sobol index).
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import sklearn
from sklearn.tree import DecisionTreeRegressor

from jobs.objective_specs import ObjectiveSpec
from jobs.search_report.outliers import Array, without_outliers
from jobs.search_report.trial_table import TrialRecord, completed
from jobs.search_space import Value
from workers.document import Document

FEWEST_TRIALS = 8
"""Completed trials below which no importance is computed."""

_LEVEL = 0.9
_NUM_REPLICATES = 100
_NUM_TREES = 400
_NUM_TREES_A_REPLICATE = 64
_NUM_DONORS = 12

Counts = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


class Interval(Document):
    """An estimate and where it may lie."""

    estimate: float
    low: float
    high: float


class FieldShare(Interval):
    """Share of the objective's variance, between 0 and 1, that a field accounts for."""

    field: str


class ShareDifference(Interval):
    """Share of `field` less that of `other`."""

    field: str
    other: str


class Importance(Document):
    """How much the fields matter for one objective."""

    metric: str
    num_trials: int
    """Completed trials, the only ones that count."""

    explained: float | None = None
    """Share of the variance that all fields together predict for trials not seen."""

    num_clipped: int = 0
    """Trials so bad that they count as if they were at the fence, Q3 + 3 (Q3 - Q1)."""

    level: float = _LEVEL
    """Coverage that the intervals aim at."""

    fields: tuple[FieldShare, ...] = ()
    """Fields with more than one value, the most important first."""

    differences: tuple[ShareDifference, ...] = ()
    """Between each two fields; the more important one first."""

    reason: str | None = None
    """Why nothing could be computed."""


def importance(
    trials: Sequence[TrialRecord], fields: Sequence[str], objective: ObjectiveSpec, *, seed: int = 0
) -> Importance:
    """Share of the objective's variance that each field accounts for.

    It holds for the trials as the search drew them: an algorithm that looks for good values draws
    few bad ones. The interval resamples trials.

    Args:
        trials: All trials; those that did not complete are left out.
        fields: Searched fields; those with one value among the completed trials are left out.
        objective: What is accounted for.
        seed: Of trees and resampling.
    """
    metric = objective.metric
    done = completed(trials, [metric])
    varied = [name for name in fields if len({_key(trial.values[name]) for trial in done}) > 1]
    result = Importance(metric=metric, num_trials=len(done))
    if len(done) < FEWEST_TRIALS:
        reason = f"{len(done)} completed trials are too few; {FEWEST_TRIALS} are needed"
        return result.model_copy(update={"reason": reason})
    if not varied:
        return result.model_copy(update={"reason": "no field has more than one value"})
    raw = np.array([trial.objectives[metric] for trial in done])
    targets = without_outliers(raw, objective.mode)
    if np.ptp(targets) == 0:
        return result.model_copy(update={"reason": f"{metric} is the same in all trials"})
    table = _encoded(done, varied)
    rng = np.random.default_rng(seed)
    with sklearn.config_context(skip_parameter_validation=True, assume_finite=True):
        whole = _shares(table, targets, np.ones(len(done), int), _NUM_TREES, rng)
        replicates = np.array(list(_replicates(table, targets, rng)))
    return result.model_copy(
        update={
            "explained": min(max(whole.explained, 0.0), 1.0),
            "num_clipped": int((raw != targets).sum()),
            "fields": _ordered(varied, whole.of_field, replicates),
            "differences": _differences(varied, whole.of_field, replicates),
        }
    )


@dataclass(frozen=True)
class _Table:
    """Values of the fields as numbers."""

    cells: Array
    """(num_trials, num_columns)"""

    columns: list[list[int]]
    """Columns of each field: one for numbers, else one a category."""


@dataclass(frozen=True)
class _Shares:
    of_field: Array
    explained: float


def _encoded(trials: Sequence[TrialRecord], fields: Sequence[str]) -> _Table:
    cells: list[list[float]] = []
    columns: list[list[int]] = []
    for name in fields:
        values = [trial.values[name] for trial in trials]
        start = len(cells)
        numbers = [
            float(value)
            for value in values
            if isinstance(value, int | float) and not isinstance(value, bool)
        ]
        if len(numbers) == len(values):
            cells.append(numbers)
        else:
            keys = [_key(value) for value in values]
            cells += [[float(key == category) for key in keys] for category in sorted(set(keys))]
        columns.append(list(range(start, len(cells))))
    return _Table(np.array(cells).T, columns)


def _key(value: Value) -> str:
    return json.dumps(value)


def _replicates(table: _Table, targets: Array, rng: np.random.Generator) -> Iterator[Array]:
    num_trials = len(targets)
    even = np.full(num_trials, 1 / num_trials)
    for _ in range(_NUM_REPLICATES):
        counts = rng.multinomial(num_trials, even)
        yield _shares(table, targets, counts, _NUM_TREES_A_REPLICATE, rng).of_field


def _shares(
    table: _Table, targets: Array, counts: Counts, num_trees: int, rng: np.random.Generator
) -> _Shares:
    """Shares in a sample that holds each trial `counts` times.

    A tree's draw takes all copies of a trial or none of them out of the bag; else a copy would be
    predicted by trees that saw the trial.
    """
    num_trials, num_fields = len(targets), len(table.columns)
    odds = counts / counts.sum()
    cells = _with_donors(table, rng.choice(num_trials, (_NUM_DONORS, num_trials), p=odds))
    sums = np.zeros(cells.shape[:2])
    num_votes = np.zeros(num_trials)
    for _ in range(num_trees):
        draw = rng.multinomial(counts.sum(), odds)
        bag, out = draw > 0, (draw == 0) & (counts > 0)
        if not out.any():
            continue
        tree = DecisionTreeRegressor(random_state=int(rng.integers(2**31)))
        tree.fit(cells[0, bag], targets[bag], sample_weight=draw[bag])
        asked = cells[:, out]
        sums[:, out] += tree.predict(asked.reshape(-1, asked.shape[-1])).reshape(asked.shape[:2])
        num_votes[out] += 1
    seen = num_votes > 0
    weights = counts[seen] / max(counts[seen].sum(), 1)
    errors = ((sums[:, seen] / num_votes[seen] - targets[seen]) ** 2) @ weights
    variance = np.average((targets - np.average(targets, weights=odds)) ** 2, weights=odds)
    if variance == 0:
        return _Shares(np.zeros(num_fields), 0.0)
    permuted = errors[1:].reshape(num_fields, _NUM_DONORS).mean(axis=1)
    return _Shares((permuted - errors[0]) / (2 * variance), float(1 - errors[0] / variance))


def _with_donors(table: _Table, donors: Counts) -> Array:
    """Cells as they are, then with each field from each round of donors.

    Returns:
        (1 + num_fields * num_donors, num_trials, num_columns), float32 as the trees take it.
    """
    variants = [table.cells]
    for columns in table.columns:
        for donor in donors:
            variant = table.cells.copy()
            variant[:, columns] = table.cells[donor][:, columns]
            variants.append(variant)
    return np.array(variants, dtype=np.float32)


def _ordered(fields: Sequence[str], whole: Array, replicates: Array) -> tuple[FieldShare, ...]:
    shares = [
        FieldShare(field=name, **_interval(whole[i], replicates[:, i], lowest=0.0))
        for i, name in enumerate(fields)
    ]
    return tuple(sorted(shares, key=lambda share: -share.estimate))


def _differences(
    fields: Sequence[str], whole: Array, replicates: Array
) -> tuple[ShareDifference, ...]:
    order = np.argsort(-whole, kind="stable")
    return tuple(
        ShareDifference(
            field=fields[first],
            other=fields[second],
            **_interval(
                whole[first] - whole[second],
                replicates[:, first] - replicates[:, second],
                lowest=-1.0,
            ),
        )
        for first, second in combinations(order, 2)
    )


def _interval(estimate: float, replicates: Array, *, lowest: float) -> dict[str, float]:
    """Spread of the replicates around the estimate from all trials.

    A replicate holds 63 % of the trials and so predicts worse: its mean is biased, its spread is
    what is wanted.
    """
    tails = [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2]
    low, high = np.quantile(replicates - replicates.mean(), tails) + estimate
    low, estimate, high = (min(max(float(x), lowest), 1.0) for x in (low, estimate, high))
    return {"estimate": estimate, "low": min(low, estimate), "high": max(high, estimate)}

"""The difference of two methods' means, and how far new rows and new seeds may move it.

Every run answers the same rows, so a row's luck is in all runs of a task and a run's luck in all of
its rows. The variance of the difference has a part of each, estimated apart:

    V = V_rows + V_seeds
    V_seeds = M (1 / S_a + 1 / S_b),   V_rows = max(0, s²(row differences) / N - V_e)

M is the mean square of the runs' means about their method's, pooled over all methods, since three
seeds of one tell next to nothing of their spread. V_e is what neither rows nor seeds explain; it is
in both parts' raw estimates and counted with the seeds, whose few degrees of freedom must cover it.
The estimate is then taken to be off by sqrt(V_rows) Z + sqrt(V_seeds) T, Z normal and T Student's
with M's degrees of freedom. The base model has no seeds, and no part of V_seeds.

Sources: Cornfield and Tukey 1956 (variances of crossed means); Fisher 1935 and Behrens 1929 (sums
of a mean's parts whose variances are estimated apart; rather too wide than too narrow).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import optimize, stats

from jobs.compare_report.method_results import Array

LEVEL = 0.95
"""Coverage that the intervals aim at."""

_NUM_RESAMPLES = 4000
_FEW_VALUES = 64
_CHUNK = 1 << 22
_NORMAL = np.linspace(-9, 9, 1801)  # tails beyond weigh 1e-19
_WEIGHTS = stats.norm.pdf(_NORMAL) * (_NORMAL[1] - _NORMAL[0])


@dataclass(frozen=True)
class Answers:
    """What is measured of one method's answers."""

    tasks: tuple[Array, ...]
    """Of each task, (num_seeds, num_rows), two rows or more."""

    is_trained: bool = True
    """False of the base model, which no seed can change."""

    @property
    def num_seeds(self) -> int:
        """Runs."""
        return int(self.tasks[0].shape[0])

    @property
    def seed_means(self) -> Array:
        """The mean over tasks of each run, (num_seeds,)."""
        return np.mean([rounded_alike(task, axis=1) for task in self.tasks], axis=0)


@dataclass(frozen=True)
class SeedLuck:
    """How much the means of runs differ by their seed alone."""

    mean_square: float
    """Variance of a run's mean about its method's."""

    freedom: int
    """Degrees of freedom; 0 where no method has two runs, and nothing is known."""


@dataclass(frozen=True)
class Difference:
    """First method less second: the mean over tasks of the means over rows."""

    estimate: float

    row_variance: float
    """Part of its variance that other rows would bring."""

    seed_variance: float
    """Part that other seeds would bring."""

    freedom: int
    """Degrees of freedom of `seed_variance`; 0 where seeds are left out of account."""

    @property
    def standard_error(self) -> float:
        """Of the estimate."""
        return math.sqrt(self.row_variance + self.seed_variance)

    @property
    def p_value(self) -> float:
        """Two-sided, that new rows and new seeds would show no difference on average."""
        if self.estimate == 0 or self.standard_error == 0:
            return float(self.estimate == 0)
        return min(1.0, 2 * self.tail(abs(self.estimate)))

    def tail(self, reach: float) -> float:
        """Probability that the estimate is off by more than this upwards."""
        normal, student = math.sqrt(self.row_variance), math.sqrt(self.seed_variance)
        if student == 0:
            return float(stats.norm.sf(reach / normal)) if normal else float(reach < 0)
        return float(_WEIGHTS @ stats.t.sf((reach - normal * _NORMAL) / student, self.freedom))

    def reach(self, tail: float) -> float:
        """What the estimate is off by upwards with this probability, below ½."""
        if self.standard_error == 0:
            return 0.0
        highest = self.standard_error
        while self.tail(highest) > tail:
            highest *= 2
        return float(optimize.brentq(lambda x: self.tail(x) - tail, 0.0, highest, rtol=1e-6))


def seed_luck(methods: Sequence[Answers]) -> SeedLuck:
    """Pool what all methods' runs tell of the luck of a seed.

    Takes the luck to be alike in all methods: one that varies more than the others is judged too
    kindly, and they too strictly.
    """
    squares, freedom = [], 0
    for method in methods:
        means = method.seed_means
        squares += ((means - means.mean()) ** 2).tolist()
        freedom += method.num_seeds - 1
    return SeedLuck(math.fsum(squares) / freedom if freedom else 0.0, freedom)


class PairedDifference:
    """Two methods' answers to the same rows.

    Args:
        first: Whose mean counts positively.
        second: Whose mean is taken off; has the same tasks and rows.
        luck: Of the seeds.
    """

    def __init__(self, first: Answers, second: Answers, luck: SeedLuck) -> None:
        self._luck = luck
        self._methods = (first, second)
        self.row_differences: tuple[Array, ...] = tuple(
            ours.mean(axis=0) - theirs.mean(axis=0)
            for ours, theirs in zip(first.tasks, second.tasks, strict=True)
        )
        """Of each task's rows, the first method's mean over its runs less the second's."""

    @property
    def num_rows(self) -> int:
        """Questions of all tasks."""
        return sum(rows.size for rows in self.row_differences)

    @cached_property
    def difference(self) -> Difference:
        """The difference of the means and the parts of its variance."""
        share = 1 / len(self.row_differences)
        of_seeds = sum(1 / each.num_seeds for each in self._methods if each.is_trained)
        return Difference(
            estimate=share * math.fsum(float(_mean(rows)) for rows in self.row_differences),
            row_variance=share**2 * math.fsum(self._row_variances),
            seed_variance=self._luck.mean_square * of_seeds if self._luck.freedom else 0.0,
            freedom=self._luck.freedom if of_seeds else 0,
        )

    def bootstrap_interval(self, *, seed: int = 0) -> tuple[float, float]:
        """Percentile interval of the difference over rows and seeds.

        Rows are drawn with replacement within their task, each with all its answers: both methods'
        and all seeds'. Seeds are too few to be drawn: three have ten resamples, which spread too
        little by a third and lack the tails of Student's t. Their part is drawn from that.

        Args:
            seed: Of the draws.

        Source:
            Efron 1979. docs/comparing.md has the measured coverage.
        """
        difference = self.difference
        ends = []
        # Drawn for both signs, so that swapped methods have the mirrored interval exactly.
        for sign in (1.0, -1.0):
            rng = np.random.default_rng(seed)
            draws = np.zeros(_NUM_RESAMPLES)
            for rows, variance in zip(self.row_differences, self._row_variances, strict=True):
                raw = float(rows.var(ddof=1)) / rows.size
                shrunk = math.sqrt(variance / raw) if raw else 0.0
                draws += shrunk * (_resampled(sign * rows, rng) - sign * _mean(rows))
            draws = sign * difference.estimate + draws / len(self.row_differences)
            if difference.seed_variance:
                luck = rng.standard_t(difference.freedom, _NUM_RESAMPLES)
                draws += math.sqrt(difference.seed_variance) * luck
            ends.append(np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
        (low, high), (mirrored_low, mirrored_high) = ends
        return float(low - mirrored_high) / 2, float(high - mirrored_low) / 2

    @cached_property
    def _row_variances(self) -> list[float]:
        """Of each task, the part of the variance of its mean that other rows would bring."""
        found = []
        for index, rows in enumerate(self.row_differences):
            raw = float(np.sort(rows).var(ddof=1)) / rows.size
            unexplained = sum(_unexplained(each.tasks[index]) for each in self._methods)
            found.append(max(0.0, raw - unexplained) if self._luck.freedom else raw)
        return found


def rounded_alike(task: Array, axis: int) -> Array:
    """Means that do not depend, by rounding, on the order of what is averaged."""
    return np.sort(task, axis=axis).mean(axis=axis)


def _mean(rows: Array) -> float:
    return math.fsum(rows) / rows.size


def _unexplained(task: Array) -> float:
    """Variance of a method's mean by what neither its rows nor its seeds explain."""
    num_seeds, num_rows = task.shape
    if num_seeds == 1:
        return 0.0
    fitted = task.mean(axis=0) + task.mean(axis=1, keepdims=True) - task.mean()
    square = math.fsum(((task - fitted) ** 2).ravel()) / ((num_seeds - 1) * (num_rows - 1))
    return square / task.size


def _resampled(rows: Array, rng: np.random.Generator) -> Array:
    """Means of resamples of rows, (num_resamples,)."""
    values, counts = np.unique(rows, return_counts=True)
    if len(values) <= _FEW_VALUES:
        drawn = rng.multinomial(rows.size, counts / rows.size, _NUM_RESAMPLES)
        return drawn @ values / rows.size
    ordered = np.sort(rows)  # so that their order has no effect
    size = max(1, _CHUNK // rows.size)
    means = []
    for start in range(0, _NUM_RESAMPLES, size):
        number = min(size, _NUM_RESAMPLES - start)
        means.append(ordered[rng.integers(rows.size, size=(number, rows.size))].mean(axis=1))
    return np.concatenate(means)

"""What the scores of many answers come to, each with its 95 % interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

AnswerMetric = Literal["accuracy", "f1"]
"""What the mean of the scores of answers is called."""

_Z_95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


@dataclass(frozen=True)
class Accuracy:
    """A share of right answers with its 95 % Wilson interval (Wilson 1927)."""

    num_correct: int
    num_rows: int

    @property
    def value(self) -> float:
        """Share of right answers, from 0 to 1."""
        return self.num_correct / self.num_rows

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end of the interval; sensible also at 0 and 1."""
        spread = _Z_95**2 / self.num_rows
        centre = self.value + spread / 2
        half = math.sqrt(spread * (self.value * (1 - self.value) + spread / 4))
        return (
            max(0.0, (centre - half) / (1 + spread)),
            min(1.0, (centre + half) / (1 + spread)),
        )


@dataclass(frozen=True)
class MeanScore:
    """A mean of scores between 0 and 1, such as F1, with its 95 % normal interval.

    The normal interval needs tens of rows; with one row it is all of [0, 1].
    """

    value: float
    """Mean score, from 0 to 1."""

    standard_error: float
    """Standard error of the mean; infinite for one row."""

    num_rows: int

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end of the interval, within [0, 1]."""
        half = _Z_95 * self.standard_error
        return max(0.0, self.value - half), min(1.0, self.value + half)


def summarize(scores: Sequence[float]) -> Accuracy | MeanScore:
    """Sum scores up: as an accuracy if each is 0 or 1, else as a mean.

    Raises:
        ValueError: If there is no score, or one is outside [0, 1].
    """
    if not scores:
        raise ValueError("an accuracy needs at least one answer")
    if not all(0 <= score <= 1 for score in scores):
        raise ValueError("a score lies outside [0, 1]")
    if all(score in (0, 1) for score in scores):
        return Accuracy(sum(score == 1 for score in scores), len(scores))
    deviation = stdev(scores) if len(scores) > 1 else math.inf
    return MeanScore(fmean(scores), deviation / math.sqrt(len(scores)), len(scores))

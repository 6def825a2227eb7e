"""The mean over seeds, with the interval that its seeds allow."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from scipy import stats

from jobs.compare_report.difference import LEVEL
from workers.document import Document


class SeedsMean(Document):
    """A mean over the seeds of one method."""

    value: float

    half_width: float | None
    """Half of its 95 % interval over seeds, the same questions being asked (Student's t with
    S - 1 degrees of freedom); None with one run, which tells nothing of others."""

    per_seed: tuple[float, ...]
    """What it is the mean of."""

    over_questions: tuple[float, float] | None = None
    """95 % interval over questions, the same adapters being asked; None of an average of tasks."""


def seeds_mean(
    per_seed: Sequence[float], over_questions: tuple[float, float] | None = None
) -> SeedsMean:
    """The mean of what each seed came to.

    With two seeds the interval is honest and nearly useless: Student's factor is 12.7.
    """
    num_seeds = len(per_seed)
    half_width = None
    if num_seeds > 1:
        factor = float(stats.t.ppf((1 + LEVEL) / 2, num_seeds - 1))
        half_width = factor * stdev(per_seed) / math.sqrt(num_seeds)
    return SeedsMean(
        value=fmean(per_seed),
        half_width=half_width,
        per_seed=tuple(per_seed),
        over_questions=over_questions,
    )

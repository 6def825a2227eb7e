"""Tests that flip the signs of paired differences: what if either method had given either answer?

Under the hypothesis that two methods are alike, each row's difference is as likely as its negative
(Fisher 1935). Where scores are 0 or 1 and there is one pair of runs, the test is McNemar's exact
one. The rows are what is flipped, whole: a row's answers under several seeds are not independent.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import stats

from jobs.compare_report.method_results import Array

NUM_FLIPS = 19_999
"""Draws where there are too many sign patterns to count: the least p-value is 1 in 20,000."""

Alternative = Literal["two-sided", "greater"]

_CHUNK_BITS = 1 << 22
_ROUNDING = 1e-12


def mcnemar(num_better: int, num_worse: int, alternative: Alternative = "two-sided") -> float:
    """McNemar's exact test: of the rows on which two runs differ, is a share of ½ plausible?

    Args:
        num_better: Rows that only the first has right.
        num_worse: Rows that only the second has right.
        alternative: "greater" asks whether the first is better.

    Source:
        McNemar 1947; the exact, binomial form.
    """
    num = num_better + num_worse
    if num == 0:
        return 1.0
    return float(stats.binomtest(num_better, num, alternative=alternative).pvalue)


def exact_sign_flip(differences: Sequence[int], alternative: Alternative = "two-sided") -> float:
    """Share of all sign patterns whose sum is at least as far out.

    Args:
        differences: Whole numbers, one a row, such as the difference of the numbers of seeds whose
            answer is right.
        alternative: "greater" asks whether they tend to be above 0.
    """
    sizes, counts = np.unique(np.abs(np.asarray(differences, int)), return_counts=True)
    total = int(np.sum(differences))
    law: Array = np.ones(1)  # of the sum of the sizes that are drawn positive
    for size, count in zip(sizes, counts, strict=True):
        if size:
            law = _with_rows(law, int(size), int(count))
    is_two_sided = alternative == "two-sided"
    # A sum of T has (reach + T) / 2 on the positive side.
    start = (int(sizes @ counts) + (abs(total) if is_two_sided else total)) // 2
    sides = 2 if is_two_sided else 1
    return min(1.0, sides * float(law[start:].sum()))


def sampled_sign_flip(
    differences: Array, alternative: Alternative = "two-sided", *, seed: int = 0
) -> float:
    """The same of numbers of any kind, by drawn sign patterns.

    Source:
        Phipson and Smyth 2010: what was seen counts as one of the draws, so that p is never 0.
    """
    # Sorted by size, rows in any order and swapped methods meet the same draws.
    sizes = np.sort(np.abs(differences[differences != 0]))
    if not sizes.size:
        return 1.0
    total = math.fsum(differences)
    seen = abs(total) if alternative == "two-sided" else total
    seen -= _ROUNDING * float(sizes.sum())
    rng = np.random.default_rng(seed)
    num_farther, left = 0, NUM_FLIPS
    while left:
        num = min(left, max(1, _CHUNK_BITS // sizes.size))
        sums = _flipped_sums(sizes, num, rng)
        farther = np.abs(sums) >= seen if alternative == "two-sided" else sums >= seen
        num_farther += int(farther.sum())
        left -= num
    return (1 + num_farther) / (1 + NUM_FLIPS)


def fewest_rows_that_show(level: float) -> int:
    """Rows that must differ, all in one direction, before a two-sided test can reach a level."""
    return math.ceil(1 - math.log2(level))


def _with_rows(law: Array, size: int, count: int) -> Array:
    """The law of a sum after `count` further numbers that are `size` or 0, each as likely."""
    weights = stats.binom.pmf(np.arange(count + 1), count, 0.5)
    found = np.zeros(len(law) + size * count)
    for number in np.flatnonzero(weights > np.finfo(float).tiny):
        found[number * size : number * size + len(law)] += weights[number] * law
    return found


def _flipped_sums(sizes: Array, num: int, rng: np.random.Generator) -> Array:
    bits = np.frombuffer(rng.bytes(num * (-(-sizes.size // 8))), np.uint8).reshape(num, -1)
    is_positive = np.unpackbits(bits, axis=1, count=sizes.size)
    return 2 * (is_positive.astype(np.float64) @ sizes) - float(sizes.sum())

"""Objectives of trials that diverged, brought to where they do not drown the others."""

import math
from collections.abc import Sequence

import numpy as np

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def without_outliers(values: Sequence[float] | Array, mode: str) -> Array:
    """Values, those beyond Q3 + 3 (Q3 - Q1) on the bad side brought to that fence (Tukey's)."""
    given = np.asarray(values, dtype=np.float64)
    costs = given if mode == "min" else -given
    low, high = np.quantile(costs, [0.25, 0.75])
    fence = high + 3 * (high - low) if high > low else math.inf
    clipped = np.minimum(costs, fence)
    return clipped if mode == "min" else -clipped

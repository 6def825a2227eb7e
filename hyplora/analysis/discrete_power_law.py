"""The discrete power law ``P(x) = x^-exponent / zeta(exponent, x_min)`` and its fit to counts.

Exact maximum likelihood for every candidate of x_min at once, so that resampling is affordable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import zeta

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FEWEST_IN_TAIL: Final = 50
"""Below about so many values, Clauset et al. 2009 say, an exponent means little."""

EXPONENTS: Final = (1.01, 12.0)
"""Bounds within which an exponent is looked for."""

_MOST_CANDIDATES: Final = 40
_TABLE_SIZE: Final = 100_000


@dataclass(frozen=True)
class TailFit:
    """A power law fitted to the values from x_min on."""

    exponent: float
    x_min: int
    num_tail: int
    """Values from x_min on."""
    ks_distance: float
    """Largest distance between the distribution functions of values and fit."""


def fit_tail(values: Ints) -> TailFit | None:
    """Fit exponent and x_min, the one with the smallest Kolmogorov-Smirnov distance.

    Candidates of x_min are the distinct values that leave enough in the tail; of many, forty at
    equal ratios.

    Args:
        values: Positive integers in any order.

    Returns:
        None if no candidate leaves `FEWEST_IN_TAIL` values that are not all the same.

    Source:
        Clauset, Shalizi and Newman 2009, arXiv:0706.1062, sections 3.1 to 3.3.
    """
    distinct, multiplicities = np.unique(values, return_counts=True)
    at_least = multiplicities[::-1].cumsum()[::-1]
    usable = np.flatnonzero(at_least[:-1] >= FEWEST_IN_TAIL)
    if not len(usable):
        return None
    places = usable[_spread(distinct[usable])]
    logarithms = (multiplicities * np.log(distinct))[::-1].cumsum()[::-1]
    exponents = _maximum_likelihood(distinct[places], logarithms[places] / at_least[places])
    distances = _ks_distances(distinct, at_least, places, exponents)
    best = int(distances.argmin())
    return TailFit(
        exponent=float(exponents[best]),
        x_min=int(distinct[places[best]]),
        num_tail=int(at_least[places[best]]),
        ks_distance=float(distances[best]),
    )


def draw(exponent: float, x_min: int, size: int, generator: np.random.Generator) -> Ints:
    """Draw from a discrete power law.

    Exact for the first hundred thousand values from x_min on; beyond, the rounded continuous law,
    whose error there is less than 1e-5 of the probability.
    """
    table = np.arange(x_min, x_min + _TABLE_SIZE, dtype=np.float64)
    probabilities = table**-exponent / zeta(exponent, x_min)
    places = np.searchsorted(probabilities.cumsum(), generator.random(size), side="right")
    drawn = (x_min + places).astype(np.int64)
    is_beyond = places == _TABLE_SIZE
    survival = 1 - generator.random(int(is_beyond.sum()))
    far = (x_min + _TABLE_SIZE - 0.5) * survival ** (-1 / (exponent - 1)) + 0.5
    drawn[is_beyond] = np.minimum(far, 2.0**62).astype(np.int64)
    return drawn


def log_likelihoods(tail: Floats, fit: TailFit) -> Floats:
    """Compute ``log P(x)`` of each value of the tail, in nats."""
    return np.asarray(-fit.exponent * np.log(tail) - np.log(zeta(fit.exponent, fit.x_min)))


def survival(x: Ints, exponent: float, x_min: int) -> Floats:
    """Compute ``P(X >= x)`` for x from x_min on."""
    return np.asarray(zeta(exponent, x) / zeta(exponent, x_min))


def _spread(candidates: Ints) -> Ints:
    """Places of at most `_MOST_CANDIDATES` of rising candidates, at about equal ratios."""
    if len(candidates) <= _MOST_CANDIDATES:
        return np.arange(len(candidates))
    wanted = np.geomspace(candidates[0], candidates[-1], _MOST_CANDIDATES)
    return np.unique(np.searchsorted(candidates, wanted - 0.5))


def _maximum_likelihood(x_min: Ints, mean_log: Floats) -> Floats:
    """Maximize ``-exponent mean(log x) - log zeta(exponent, x_min)``, concave in the exponent."""
    low, high = EXPONENTS
    exponent = np.clip(1 + 1 / (mean_log - np.log(x_min - 0.5)), low + 0.01, high - 0.01)
    step = 1e-4
    for _ in range(50):
        below, here, above = (np.log(zeta(exponent + shift, x_min)) for shift in (-step, 0, step))
        slope = (above - below) / (2 * step) + mean_log
        curvature = (above - 2 * here + below) / step**2
        moved = np.clip(exponent - slope / curvature, (exponent + low) / 2, (exponent + high) / 2)
        change = np.abs(moved - exponent).max()
        exponent = moved
        if change < 1e-6:
            break
    return np.asarray(exponent)


def _ks_distances(distinct: Ints, at_least: Ints, places: Ints, exponents: Floats) -> Floats:
    """Compute the distance of each candidate's fit.

    Between two values the empirical function stands still while the fitted one rises, so the
    distance is largest at a value or just before one.
    """
    more = np.append(at_least[1:], 0)
    distances = np.empty(len(places))
    for index, (place, exponent) in enumerate(zip(places, exponents, strict=True)):
        tail = distinct[place:]
        norm = zeta(exponent, tail[0])
        from_x = zeta(exponent, tail) / norm
        after_x = from_x - tail.astype(np.float64) ** -exponent / norm
        num_tail = at_least[place]
        before = np.abs(from_x - at_least[place:] / num_tail).max()
        distances[index] = max(before, np.abs(after_x - more[place:] / num_tail).max())
    return distances

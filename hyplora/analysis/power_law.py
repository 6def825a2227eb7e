"""Whether token counts follow a power law, and with which exponent; the answer can be no.

A straight line on logarithmic axes proves nothing. Following Clauset, Shalizi and Newman 2009,
arXiv:0706.1062, a power law has to pass two tests: resamples of the fit lie as far from their own
fits as the counts do from theirs, and neither a log-normal nor an exponential is likelier.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import powerlaw
from torch import Tensor

from hyplora.analysis.discrete_power_law import (
    FEWEST_IN_TAIL,
    Floats,
    Ints,
    TailFit,
    draw,
    fit_tail,
    log_likelihoods,
)
from hyplora.errors import AnalysisError

LEVEL: Final = 0.1
"""Significance of both tests, as in the source: a p-value of goodness below it rules out."""


class Alternative(StrEnum):
    """Distributions that look like a power law over a few decades."""

    LOG_NORMAL = "log-normal"
    EXPONENTIAL = "exponential"


_KINDS: Final = {
    Alternative.LOG_NORMAL: powerlaw.Lognormal,
    Alternative.EXPONENTIAL: powerlaw.Exponential,
}
_MOST_STARTS: Final = 10
_SMALL_GAIN: Final = 0.01
"""Nats over the whole tail."""


class Verdict(StrEnum):
    """What the tests say together."""

    SUPPORTED = "supported"
    """The fit is plausible and significantly likelier than every alternative."""
    NOT_DISTINGUISHED = "not distinguished"
    """The fit is plausible, but some alternative is about as likely."""
    NOT_SUPPORTED = "not supported"
    """The fit is implausible, or an alternative is significantly likelier."""


@dataclass(frozen=True)
class Comparison:
    """A power law against an alternative, both fitted from the same x_min on."""

    alternative: Alternative
    log_likelihood_ratio: float
    """Above 0 if the power law is likelier, in nats over all values of the tail."""
    p_value: float
    """Of a ratio so far from 0, of either sign, if both were equally far from the truth (Vuong).
    Where a log-normal leads, at least that of the test of nested distributions."""

    @property
    def is_significant(self) -> bool:
        """Whether the sign of the ratio can be relied on."""
        return self.p_value < LEVEL


@dataclass(frozen=True)
class PowerLawFit:
    """A discrete power law fitted to counts, and what speaks for and against it."""

    exponent: float
    """gamma of ``P(count) ~ count^-gamma``."""
    exponent_low: float
    exponent_high: float
    """95 % interval over resamples of the counts, x_min chosen anew in each."""
    x_min: int
    """The power law is fitted to counts from here on."""
    num_values: int
    """Counts above 0: distinct tokens seen."""
    num_tail: int
    """Of these, how many are at least x_min."""
    ks_distance: float
    """Largest distance between the distribution functions of counts and fit."""
    goodness_p: float
    """Share of resamples of the fit that are as far from their own fits; small rules out."""
    num_resamples: int
    """Of either kind."""
    comparisons: tuple[Comparison, ...]
    verdict: Verdict


def fit_power_law(
    counts: Tensor | Sequence[int], num_resamples: int = 200, seed: int = 0
) -> PowerLawFit:
    """Fit a power law to token counts and test it.

    Args:
        counts: How often each token occurs; zeros are left out.
        num_resamples: The p-value of goodness is known to about 0.5 / sqrt(num_resamples).
        seed: Of the resamples.

    Raises:
        AnalysisError: If there are too few counts to fit anything.
    """
    values = np.asarray(counts, dtype=np.int64)
    values = values[values > 0]
    fit = fit_tail(values)
    if fit is None:
        raise AnalysisError(
            f"a power law needs at least {FEWEST_IN_TAIL} tokens whose counts differ; got "
            f"{len(values)} tokens with {len(np.unique(values))} different counts: give more text"
        )
    generator = np.random.default_rng(seed)
    low, high = _exponent_interval(values, num_resamples, generator)
    goodness_p = _goodness(values, fit, num_resamples, generator)
    comparisons = tuple(_compare(values, fit, alternative) for alternative in Alternative)
    return PowerLawFit(
        exponent=fit.exponent,
        exponent_low=low,
        exponent_high=high,
        x_min=fit.x_min,
        num_values=len(values),
        num_tail=fit.num_tail,
        ks_distance=fit.ks_distance,
        goodness_p=goodness_p,
        num_resamples=num_resamples,
        comparisons=comparisons,
        verdict=_verdict(goodness_p, comparisons),
    )


def _exponent_interval(
    values: Ints, num_resamples: int, generator: np.random.Generator
) -> tuple[float, float]:
    fits = (fit_tail(generator.choice(values, size=len(values))) for _ in range(num_resamples))
    exponents = [fit.exponent for fit in fits if fit is not None]
    low, high = np.quantile(exponents, (0.025, 0.975))
    return float(low), float(high)


def _goodness(
    values: Ints, fit: TailFit, num_resamples: int, generator: np.random.Generator
) -> float:
    """Share of resamples, of counts below x_min and of the fit from there on, that fit worse."""
    below = values[values < fit.x_min]
    num_worse = 0
    for _ in range(num_resamples):
        num_tail = int(generator.binomial(len(values), fit.num_tail / len(values)))
        body = generator.choice(below, size=len(values) - num_tail) if len(below) else below
        resample = np.concatenate([body, draw(fit.exponent, fit.x_min, num_tail, generator)])
        refit = fit_tail(resample)
        num_worse += refit is not None and refit.ks_distance >= fit.ks_distance
    return num_worse / num_resamples


def _compare(values: Ints, fit: TailFit, alternative: Alternative) -> Comparison:
    tail = values[values >= fit.x_min].astype(np.float64)
    ours = log_likelihoods(tail, fit)
    theirs = _alternative_log_likelihoods(tail, fit.x_min, alternative)
    ratio, p_value = powerlaw.loglikelihood_ratio(ours, theirs)
    if alternative is Alternative.LOG_NORMAL and ratio < 0:
        # It has a parameter more and comes as close to a power law as one likes, so that a small
        # lead is no evidence; Vuong's test does not know that.
        p_value = max(p_value, powerlaw.loglikelihood_ratio(ours, theirs, nested=True)[1])
    return Comparison(alternative, float(ratio), float(p_value) if ratio else 1.0)


def _alternative_log_likelihoods(tail: Floats, x_min: int, alternative: Alternative) -> Floats:
    """Fit an alternative to the tail, starting again where it stopped until that gains nothing."""
    kind = _KINDS[alternative]
    parameters: dict[str, float] | None = None
    likelihoods, total = np.zeros(0), -math.inf
    for _ in range(_MOST_STARTS):
        with warnings.catch_warnings():
            # Its optimizer tries impossible values and stops early; a new start makes up for both.
            warnings.simplefilter("ignore")
            fit = kind(data=tail, xmin=x_min, discrete=True, parameters=parameters, verbose=0)
            likelihoods = np.asarray(fit.loglikelihoods(tail), dtype=np.float64)
        parameters = dict(fit.parameters)
        if likelihoods.sum() < total + _SMALL_GAIN:
            break
        total = float(likelihoods.sum())
    return likelihoods


def _verdict(goodness_p: float, comparisons: Sequence[Comparison]) -> Verdict:
    is_beaten = any(each.is_significant and each.log_likelihood_ratio < 0 for each in comparisons)
    if goodness_p < LEVEL or is_beaten:
        return Verdict.NOT_SUPPORTED
    if all(each.is_significant for each in comparisons):
        return Verdict.SUPPORTED
    return Verdict.NOT_DISTINGUISHED

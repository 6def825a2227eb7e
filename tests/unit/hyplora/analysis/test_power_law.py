"""Power laws are found where they are, and denied where they are not."""

import warnings

import numpy as np
import powerlaw
import pytest
import torch
from scipy.special import zeta

from hyplora.analysis.discrete_power_law import draw, fit_tail
from hyplora.analysis.power_law import Alternative, Verdict, fit_power_law
from hyplora.errors import AnalysisError


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(("exponent", "x_min"), [(1.5, 1), (1.9, 1), (2.5, 7)])
def test_draws_follow_the_law(exponent: float, x_min: int) -> None:
    drawn = draw(exponent, x_min, 100_000, generator())
    assert drawn.min() == x_min
    for x in (x_min, x_min + 1, 3 * x_min, 1000, 300_000):  # the last beyond the table
        expected = float(zeta(exponent, x) / zeta(exponent, x_min))
        error = np.sqrt(expected * (1 - expected) / len(drawn)) + 1e-6
        assert abs((drawn >= x).mean() - expected) < 4 * error


@pytest.mark.parametrize("exponent", [1.4, 1.9, 2.7, 4.0])
def test_the_interval_covers_the_exponent_that_counts_were_drawn_with(exponent: float) -> None:
    fit = fit_power_law(draw(exponent, 1, 5000, generator()), num_resamples=100)
    assert fit.exponent_low < exponent < fit.exponent_high
    assert fit.exponent_low < fit.exponent < fit.exponent_high
    assert fit.goodness_p > 0.1


def test_counts_of_a_power_law_support_it() -> None:
    fit = fit_power_law(draw(1.9, 1, 20_000, generator()), num_resamples=50)
    assert fit.verdict is Verdict.SUPPORTED
    assert all(each.log_likelihood_ratio > 0 for each in fit.comparisons)


def test_x_min_leaves_out_counts_that_are_no_power_law() -> None:
    body = generator().integers(1, 20, 6000)
    fit = fit_power_law(np.concatenate([body, draw(2.5, 20, 4000, generator())]), 50)
    assert 16 <= fit.x_min <= 30
    assert fit.exponent == pytest.approx(2.5, abs=0.1)
    assert (fit.num_values, fit.num_tail) == (10_000, pytest.approx(4000, rel=0.2))


@pytest.mark.parametrize("kind", ["exponential", "poisson", "uniform"])
def test_counts_that_are_something_else_do_not_support_a_power_law(kind: str) -> None:
    source = generator()
    counts = {
        "exponential": np.ceil(source.exponential(20, 8000)),
        "poisson": source.poisson(30, 8000),
        "uniform": source.integers(1, 100, 8000),
    }[kind]
    fit = fit_power_law(torch.tensor(counts).long(), num_resamples=50)
    assert fit.verdict is Verdict.NOT_SUPPORTED


def test_a_narrow_log_normal_is_never_called_a_power_law() -> None:
    counts = np.ceil(generator().lognormal(2, 1.2, 8000)).astype(int)
    fit = fit_power_law(counts, num_resamples=50)
    assert fit.verdict is not Verdict.SUPPORTED
    assert fit.num_tail < len(counts) / 10  # only the far end is compatible with one


def test_fit_and_comparisons_are_those_of_the_powerlaw_package() -> None:
    counts = draw(2.2, 3, 3000, generator())
    ours = fit_power_law(counts, num_resamples=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its optimizer divides by zero on the way
        theirs = powerlaw.Fit(
            counts, discrete=True, xmin=ours.x_min, estimate_discrete=False, verbose=0
        )
        ratio, p_value = theirs.distribution_compare("power_law", "exponential")
    assert ours.exponent == pytest.approx(theirs.power_law.alpha, abs=1e-3)
    (exponential,) = (c for c in ours.comparisons if c.alternative is Alternative.EXPONENTIAL)
    assert exponential.log_likelihood_ratio == pytest.approx(ratio, rel=1e-4)
    assert exponential.p_value == pytest.approx(p_value, rel=1e-2)


@pytest.mark.parametrize("seed", range(6))
def test_a_small_lead_of_the_log_normal_does_not_rule_a_power_law_out(seed: int) -> None:
    counts = draw(4.0, 1, 5000, generator(seed))
    fit = fit_power_law(counts, num_resamples=20)
    (log_normal,) = (c for c in fit.comparisons if c.alternative is Alternative.LOG_NORMAL)
    assert log_normal.log_likelihood_ratio > 0 or not log_normal.is_significant


def test_kolmogorov_smirnov_distance_is_the_largest_at_any_integer() -> None:
    values = draw(2.0, 1, 300, generator())
    fit = fit_tail(values)
    assert fit is not None
    x = np.arange(fit.x_min, 20_000)
    tail = values[values >= fit.x_min]
    empirical = (tail[:, None] >= x).mean(0)
    model = zeta(fit.exponent, x) / zeta(fit.exponent, fit.x_min)
    assert fit.ks_distance == pytest.approx(np.abs(empirical - model).max(), rel=1e-6)


def test_a_seed_gives_the_same_fit_again_and_zeros_do_not_matter() -> None:
    counts = draw(1.9, 1, 2000, generator())
    padded = np.concatenate([counts, np.zeros(500, dtype=np.int64)])
    assert fit_power_law(counts, 20, seed=3) == fit_power_law(padded, 20, seed=3)


@pytest.mark.parametrize("counts", [[], [1] * 500, [0, 0, 5], [5, 6, 7]], ids=len)
def test_counts_too_few_to_fit_are_refused(counts: list[int]) -> None:
    with pytest.raises(AnalysisError, match="give more text"):
        fit_power_law(counts)

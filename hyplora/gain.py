"""The closed form of HypLoRA: a LoRA whose update is scaled by a radial gain.

The exponential map acts along ``x`` and the logarithmic map along ``u = BAx``, so the whole chain
of maps multiplies ``u`` by one number a token. With ``tau = |x| / (nu sqrt(K))`` and
``mu = |u| / (nu sqrt(K))``, the lengths measured in radii of the hyperboloid, that number is

    g = arsinh(mu S) / mu,        S = sinh(min(tau, radius_cap)) / tau.

docs/method.md derives it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hyplora.geometry.numerics import (
    arsinh_exp,
    arsinhc,
    log_sinhc,
    require_full_precision,
)

if TYPE_CHECKING:
    from jaxtyping import Float


def lorentz_gain(
    x_norm: Float[Tensor, "*batch"],
    update_norm_sq: Float[Tensor, "*batch"],
    curvature: float | Float[Tensor, 1],
    norm_scale: float,
    radius_cap: float = math.inf,
) -> Float[Tensor, "*batch"]:
    """Compute the gain of the Lorentz projection, token by token.

    S is kept as its logarithm, so that ``mu S`` may leave the dtype: only a gain that itself
    overflows does so here.

    Args:
        x_norm: ``|x|``: norms of the layer's inputs (length).
        update_norm_sq: ``|BAx|^2``: squared norms of the update before alpha / r (length^2).
            Squared, because the norm has no gradient at B = 0, where training starts. Rounding
            errors below zero count as zero.
        curvature: ``K > 0`` in units of ``norm_scale`` squared.
        norm_scale: ``nu``: the unit in which the maps measure ``x`` (length).
        radius_cap: Largest ``tau`` that the exponential map sees; longer inputs are clipped to it.

    Returns:
        ``g > 0``: 1 in flat space (K to infinity), S at B = 0.

    Raises:
        GeometryError: If the norms are in half precision.

    Source:
        Closed form of the maps of Yang et al. 2024, arXiv:2410.04010.
    """
    require_full_precision(x_norm)
    radius_sq = norm_scale**2 * curvature
    tau = x_norm / radius_sq**0.5
    log_stretch = log_sinhc(tau.clamp(max=radius_cap)) - (tau / radius_cap).clamp(min=1).log()
    # The smallest normal number stands in for zero, where neither log nor sqrt has a gradient.
    smallest = torch.finfo(update_norm_sq.dtype).tiny
    mu = (update_norm_sq / radius_sq).clamp(min=smallest).sqrt()
    log_reach = mu.log() + log_stretch
    is_far = log_reach > 0
    stretch = torch.where(is_far, 0.0, log_stretch).exp()
    near = stretch * arsinhc(log_reach.clamp(max=0).exp())
    far = arsinh_exp(log_reach.clamp(min=0)) / torch.where(is_far, mu, 1.0)
    return torch.where(is_far, far, near)

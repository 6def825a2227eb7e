"""The closed form of HypLoRA: a LoRA whose update is scaled by a radial gain.

The exponential map acts along ``x`` and the logarithmic map along ``u = BAx``, so the whole chain
of maps multiplies ``u`` by one number a token. With ``tau = |x| / (nu sqrt(K))`` and
``mu = |u| / (nu sqrt(K))``, the lengths measured in radii of the hyperboloid, that number is

    g = arsinh(mu S) / mu,        S = sinh(min(tau, radius_cap)) / tau.

docs/method.md derives it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from hyplora.geometry.numerics import arsinh_scaled_exp, log_sinhc, require_full_precision

if TYPE_CHECKING:
    from jaxtyping import Float

LARGEST_PLAIN_RADIUS: Final = 20.0
"""Radius up to which sinh and its gradients stay far inside float32; beyond, logarithms serve."""


def lorentz_gain(
    x_norm: Float[Tensor, "*batch"],
    update_norm_sq: Float[Tensor, "*batch"],
    curvature: float | Float[Tensor, 1],
    norm_scale: float,
    radius_cap: float = math.inf,
) -> Float[Tensor, "*batch"]:
    """Compute the gain of the Lorentz projection, token by token.

    Value and gradient are exact to a few roundings and finite at zero input and at B = 0. A
    ``radius_cap`` beyond `LARGEST_PLAIN_RADIUS`, or none, costs more time: it takes S as its
    logarithm, so that only a gain that itself leaves the dtype overflows.

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
    # The smallest normal number stands in for zero: there the forms below have their limits to the
    # last digit, and the gradient, which is zero there, does not become 0 / 0.
    smallest = torch.finfo(x_norm.dtype).tiny
    radius_sq = norm_scale**2 * curvature
    tau = (x_norm / radius_sq**0.5).clamp(min=smallest)
    mu = (update_norm_sq / radius_sq).clamp(min=smallest).sqrt()
    tau_capped = tau.clamp(max=radius_cap)
    if radius_cap <= LARGEST_PLAIN_RADIUS:
        length = torch.asinh(mu * (tau_capped.sinh() / tau))
    else:
        log_stretch = log_sinhc(tau_capped) - (tau / radius_cap).clamp(min=1).log()
        length = arsinh_scaled_exp(mu, log_stretch)
    return length / mu

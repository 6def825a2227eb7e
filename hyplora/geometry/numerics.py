"""Hyperbolic functions in forms whose values and gradients hold at zero and far out.

Each function joins two forms with `torch.where`, which multiplies the gradient of the form not
selected by zero. Both forms therefore see only arguments at which they are finite: 0 * inf is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hyplora.errors import GeometryError

if TYPE_CHECKING:
    from jaxtyping import Float

# Up to its end each series, in powers of x^2, is exact to float64's epsilon in value and gradient.
# The quotient beyond it loses less than two decimals of its gradient to cancellation.
_SINHC_SERIES_END = 0.5
_SINHC_SERIES = [1 / math.factorial(2 * k + 1) for k in range(8)]
_ARSINHC_SERIES_END = 0.2
_ARSINHC_SERIES = [(-0.25) ** k * math.comb(2 * k, k) / (2 * k + 1) for k in range(12)]
# From here on ``arsinh(x) = log(2x)`` to float64's epsilon, in value and gradient.
_ARSINH_LOGARITHM_START = 1e9


def sinhc(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Compute ``sinh(x) / x``, continued by 1 at zero.

    Overflows where ``sinh`` does, beyond 89 in float32 and 710 in float64; `log_sinhc` does not.
    """
    is_near = x.abs() < _SINHC_SERIES_END
    near = torch.where(is_near, x, 0.0)
    far = torch.where(is_near, 1.0, x)
    return torch.where(is_near, _polynomial(near.square(), _SINHC_SERIES), far.sinh() / far)


def arsinhc(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Compute ``arsinh(x) / x``, continued by 1 at zero."""
    is_near = x.abs() < _ARSINHC_SERIES_END
    near = torch.where(is_near, x, 0.0)
    far = torch.where(is_near, 1.0, x)
    # The gradient of a quotient divides by its divisor twice at once, which underflows far out.
    # Here the divisor that carries the gradient is 1, and a constant divides once more.
    constant = far.detach()
    quotient = arsinh(far) / (far / constant) / constant
    return torch.where(is_near, _polynomial(near.square(), _ARSINHC_SERIES), quotient)


def arsinh(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Compute ``arsinh(x)`` with a gradient that stays ``1 / x`` where ``x^2`` would overflow.

    `torch.asinh` has the same values, but a gradient of zero beyond 1e19 in float32.
    """
    is_large = x.abs() > _ARSINH_LOGARITHM_START
    small = torch.asinh(torch.where(is_large, 0.0, x))
    large = torch.where(is_large, x.abs(), 1.0).log() + math.log(2)
    return torch.where(is_large, large.copysign(x), small)


def log_sinhc(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Compute ``log(sinh(x) / x)`` for ``x >= 0`` without overflow.

    The derivative, ``coth(x) - 1/x``, lies in [0, 1).
    """
    is_near = x < _SINHC_SERIES_END
    near = torch.where(is_near, x, 0.0)
    far = torch.where(is_near, 1.0, x)
    log_far = far + torch.log1p(-torch.exp(-2 * far)) - torch.log(2 * far)
    return torch.where(is_near, _polynomial(near.square(), _SINHC_SERIES).log(), log_far)


def arsinh_scaled_exp(
    scale: Float[Tensor, "*shape"], exponent: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """Compute ``arsinh(scale * e^exponent)``, also where that argument would overflow.

    At ``exponent = log_sinhc(tau)`` this is ``arsinh(scale * sinh(tau) / tau)`` for any tau.

    Args:
        scale: A factor above zero.
        exponent: Logarithm of the other factor.
    """
    log_argument = scale.log() + exponent
    is_large = log_argument > 0
    small = torch.asinh(scale * torch.where(is_large, 0.0, exponent).exp())
    log_large = log_argument.clamp(min=0)
    large = log_large + torch.log1p(torch.sqrt(1 + torch.exp(-2 * log_large)))
    return torch.where(is_large, large, small)


def require_full_precision(x: Tensor) -> None:
    """Refuse dtypes in which the geometry has no correct digits left.

    Raises:
        GeometryError: If ``x`` is neither float32 nor float64.
    """
    if x.dtype not in (torch.float32, torch.float64):
        raise GeometryError(
            f"hyperbolic maps need float32 or float64, got {x.dtype}: cast the tensor first"
        )


def _polynomial(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """Evaluate ``sum_k coefficients[k] * x^k`` by Horner's rule."""
    value = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + coefficient
    return value

"""A learned curvature: positive by construction, inside its bounds, with a bounded gradient."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from jaxtyping import Float


def bounded_exp(
    logarithm: Float[Tensor, 1],
    bounds: tuple[float, float],
    gradient_bound: float | None = None,
) -> Float[Tensor, 1]:
    """Compute ``K = exp(log K)``, clipped to its bounds.

    Args:
        logarithm: The parameter ``log K``.
        bounds: Smallest and largest K. At a bound, the gradient that leads further out is zero,
            and the one that leads back passes: a clip alone would hold K there for good.
        gradient_bound: Largest absolute gradient of ``log K``; None for any.

    Returns:
        ``K``, the true one: what the maps use and what is reported.
    """
    return _BoundedExp.apply(logarithm, bounds, gradient_bound)


class _BoundedExp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        logarithm: Tensor,
        bounds: tuple[float, float],
        gradient_bound: float | None,
    ) -> Tensor:
        value = logarithm.exp().clamp(*bounds)
        ctx.save_for_backward(logarithm, value)
        ctx.bounds = (*bounds, gradient_bound)
        return value

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401
        grad_value: Tensor,
    ) -> tuple[Any, ...]:
        logarithm, value = ctx.saved_tensors
        low, high, gradient_bound = ctx.bounds
        gradient = grad_value * value
        # A step goes against the gradient.
        leads_out = ((logarithm >= math.log(high)) & (gradient < 0)) | (
            (logarithm <= math.log(low)) & (gradient > 0)
        )
        gradient = torch.where(leads_out, 0.0, gradient)
        if gradient_bound is not None:
            gradient = gradient.clamp(-gradient_bound, gradient_bound)
        return gradient, None, None

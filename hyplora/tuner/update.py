"""The adapter's update of a layer's output as one node of the autograd graph.

It computes ``base + B (s g h)`` with ``h = A x`` and the gain ``g`` of a projection, at the price
of LoRA: the gain meets r numbers a token, never d_out, and ``s = alpha / r`` rides along.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from hyplora.gain import Projection
from hyplora.tuner.shared_input import XRadius

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True)
class RadialScale:
    """How an adapter scales its update in one layer, its K and nu aside."""

    projection: Projection
    scaling: float
    """alpha / r."""
    rescale_output: bool
    """Whether the update is multiplied by nu again."""

    def factor(self, norm_scale: float | Tensor) -> float | Float[Tensor, 1]:
        """Return what the gain is multiplied with."""
        return self.scaling if self.rescale_output else self.scaling / norm_scale


class RadialUpdate(torch.autograd.Function):
    """``base + B (s g h)``, differentiable once.

    One node instead of a dozen: the gradient of B is formed as its transpose, which is several
    times faster for so tall a matrix, and that of x in one product and one pass.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        base: Float[Tensor, "*batch d_out"],
        x: Float[Tensor, "*batch d_in"],
        x_radius: XRadius,
        a: Float[Tensor, "r d_in"],
        b: Float[Tensor, "d_out r"],
        curvature: float | Float[Tensor, 1],
        norm_scale: float | Float[Tensor, 1],
        scale: RadialScale,
        in_place: bool,
    ) -> Float[Tensor, "*batch d_out"]:
        """Compute the layer's output.

        Args:
            ctx: What the backward pass will need.
            base: Output of the base layer.
            x: Inputs of the layer.
            x_radius: What the projection makes of ``|x|``; its gradient is part of x's.
            a: Down-projection A.
            b: Up-projection B.
            curvature: ``K > 0``.
            norm_scale: ``nu > 0``.
            scale: The projection and alpha / r.
            in_place: Whether nobody else reads ``base``, so that the update may be added to it.
        """
        with without_autocast(x):
            dtype, full = _dtypes(base, a)
            h, b_full = cast(linear(_rows(x, dtype), cast(a, dtype)), full), cast(b, full)
            # mu^2 = h^T gram h, by the Gram matrix of B in the projection's unit.
            gram = (b_full.T @ b_full) / scale.projection.unit(curvature, norm_scale) ** 2
            mu_sq = ((h @ gram) * h).sum(dim=-1, keepdim=True).clamp_(min=0)
            mu = torch.maximum(mu_sq.sqrt_(), x_radius.smallest_mu)
            gain = scale.projection.gain(x_radius.c, mu, curvature)
            scaled = cast(h * (gain * scale.factor(norm_scale)), dtype)
            if in_place and base.dtype == dtype:
                base.view(-1, base.shape[-1]).addmm_(scaled, cast(b, dtype).T)
                ctx.mark_dirty(base)
                output = base
            else:
                output = torch.addmm(_rows(base, dtype), scaled, cast(b, dtype).T)
                output = cast(output.view(base.shape), base.dtype)
        k, nu = (value if isinstance(value, Tensor) else None for value in (curvature, norm_scale))
        ctx.save_for_backward(x, *x_radius[:3], a, b, k, nu, cast(h, dtype), gram, mu, gain)
        ctx.constants = (curvature, norm_scale, scale, dtype, full)
        return output

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401
        grad_output: Float[Tensor, "*batch d_out"],
    ) -> tuple[Any, ...]:
        """Carry the output's gradient to the inputs of `forward`."""
        x, tau, c, c_slope, a, b, k, nu, h, gram, mu, gain = ctx.saved_tensors
        curvature, norm_scale, scale, dtype, full = ctx.constants
        curvature = curvature if k is None else k
        norm_scale = norm_scale if nu is None else nu
        _, x_wanted, _, a_wanted, b_wanted, k_wanted, nu_wanted, *_ = ctx.needs_input_grad
        grad_x = grad_a = grad_b = grad_k = grad_nu = None
        with without_autocast(x):
            unit, output_factor = (
                scale.projection.unit(curvature, norm_scale),
                scale.factor(norm_scale),
            )
            x_rows, grad_rows = _rows(x, dtype), _rows(grad_output, dtype)
            h, b_t = cast(h, full), b.T.contiguous()  # of its two layouts the faster one
            grad_scaled = cast(linear(grad_rows, cast(b_t, dtype)), full) * output_factor
            grad_gain = (grad_scaled * h).sum(dim=-1, keepdim=True)
            chi = scale.projection.way_back_slope(c * mu, curvature)
            by_log_mu = c * chi - gain
            # mu^2 = h^T gram h, so its share of the gradients of h and B goes through r x r.
            by_mu_sq = h * (grad_gain * by_log_mu / mu.square())
            grad_h = cast(torch.addmm(grad_scaled * gain, by_mu_sq, gram), dtype)
            if b_wanted:
                scaled = cast(h * (gain * output_factor), dtype)
                through_mu = (by_mu_sq.T @ h / unit**2) @ cast(b_t, full)
                grad_b = cast((cast(scaled.T @ grad_rows, full) + through_mu).T, b.dtype)
            if a_wanted:
                grad_a = cast(grad_h.T @ x_rows, a.dtype)
            if x_wanted:
                by_length = cast(grad_gain * chi * c_slope / unit**2, dtype)
                grad_x = (grad_h @ cast(a, dtype)).addcmul_(x_rows, by_length)
                grad_x = cast(grad_x.view(x.shape), x.dtype)
            if k_wanted or nu_wanted:
                by_log_unit = -(chi * c_slope * tau.square() + by_log_mu)
            if k_wanted:
                by_log_k = scale.projection.curvature_slope(tau, c, mu, curvature)
                by_log_k = by_log_k + scale.projection.unit_exponent * by_log_unit
                grad_k = (grad_gain * by_log_k).sum().view(1) / curvature
            if nu_wanted:
                by_log_nu = by_log_unit if scale.rescale_output else by_log_unit - gain
                grad_nu = (grad_gain * by_log_nu).sum().view(1) / norm_scale
        return grad_output, grad_x, None, grad_a, grad_b, grad_k, grad_nu, None, None


def _dtypes(base: Tensor, a: Tensor) -> tuple[torch.dtype, torch.dtype]:
    """Choose the precision of the d-wide products and that of the gain.

    bfloat16 has float32's range, so casting the factors costs digits that the base layer's output
    lacks, too, and saves float32 copies of x; float16 would lose small gradients.
    """
    is_autocast = torch.is_autocast_enabled(base.device.type)
    dtype = base.dtype if base.dtype == torch.bfloat16 or is_autocast else a.dtype
    return dtype, torch.promote_types(dtype, torch.float32)


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast where there is something to cast; asking torch takes as long as a small product."""
    return x if x.dtype == dtype else x.to(dtype)


def _rows(x: Tensor, dtype: torch.dtype) -> Tensor:
    """View a batch of tokens as a matrix."""
    return cast(x.reshape(-1, x.shape[-1]), dtype)


def without_autocast(x: Tensor) -> AbstractContextManager[None]:
    """Keep the chosen dtypes: autocast would take the gain to half precision."""
    device_type = x.device.type
    if torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()

"""The Lorentz model step by step: maps at the origin and the Lorentz low-rank transformation.

The readable form of the method, one function a map; `hyplora.gain` is the closed form that the
adapter computes and is tested against this module.

Points lie on the hyperboloid ``{(t, s) : -t^2 + |s|^2 = -K, t > 0}`` of sectional curvature
``-1/K`` and origin ``(sqrt(K), 0)``. A point is given by its space components ``s`` alone, from
which `time_component` restores ``t``. A tangent vector at the origin is given by its space
components, too: its time component is zero.

Source:
    Yang et al. 2024, arXiv:2410.04010, same convention for K.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hyplora.geometry.numerics import arsinhc, require_full_precision, sinhc

if TYPE_CHECKING:
    from jaxtyping import Float


def time_component(
    x: Float[Tensor, "*batch dim"], curvature: Float[Tensor, ""]
) -> Float[Tensor, "*batch 1"]:
    """Restore the time component that puts space components on the hyperboloid.

    Args:
        x: Space components of points (length).
        curvature: ``K > 0`` (length^2).

    Returns:
        ``t = sqrt(|x|^2 + K)`` (length).

    Raises:
        GeometryError: If ``x`` is in half precision.
    """
    require_full_precision(x)
    return torch.sqrt(x.square().sum(dim=-1, keepdim=True) + curvature)


def expmap0(
    tangent: Float[Tensor, "*batch dim"], curvature: Float[Tensor, ""]
) -> Float[Tensor, "*batch dim"]:
    """Map tangent vectors at the origin to points on the hyperboloid.

    Overflows from ``|tangent| / sqrt(K) = 89`` on in float32, from 710 on in float64.

    Args:
        tangent: Tangent vectors at the origin (length).
        curvature: ``K > 0`` (length^2).

    Returns:
        Space components of points, each as far from the origin as its tangent vector is long.

    Raises:
        GeometryError: If ``tangent`` is in half precision.
    """
    require_full_precision(tangent)
    return tangent * sinhc(_norm(tangent) / curvature.sqrt())


def logmap0(
    x: Float[Tensor, "*batch dim"], curvature: Float[Tensor, ""]
) -> Float[Tensor, "*batch dim"]:
    """Map points on the hyperboloid to tangent vectors at its origin.

    Written with arsinh, which equals the usual arcosh form on the hyperboloid but stays smooth at
    the origin, where a zero-initialised adapter starts.

    Args:
        x: Space components of points (length).
        curvature: ``K > 0`` (length^2).

    Returns:
        Tangent vectors (length); each norm is that point's distance from the origin.

    Raises:
        GeometryError: If ``x`` is in half precision.
    """
    require_full_precision(x)
    return x * arsinhc(_norm(x) / curvature.sqrt())


def distance0(
    x: Float[Tensor, "*batch dim"], curvature: Float[Tensor, ""]
) -> Float[Tensor, "*batch 1"]:
    """Measure the geodesic distance of points from the origin.

    Args:
        x: Space components of points (length).
        curvature: ``K > 0`` (length^2).

    Returns:
        ``sqrt(K) * arcosh(t / sqrt(K))`` (length), by way of arsinh, which keeps its digits near
        the origin.

    Raises:
        GeometryError: If ``x`` is in half precision.
    """
    require_full_precision(x)
    return curvature.sqrt() * torch.asinh(_norm(x) / curvature.sqrt())


def low_rank_transform(
    x: Float[Tensor, "*batch d_in"],
    a: Float[Tensor, "r d_in"],
    b: Float[Tensor, "d_out r"],
) -> Float[Tensor, "*batch d_out"]:
    """Apply the direct Lorentz low-rank transformation (LLR) to points on the hyperboloid.

    ``(t, s) -> (sqrt(|BAs|^2 + K), BAs)``: the matrices act on the space components, and the time
    component follows from the constraint. Unlike a map of the tangent space it does not cancel
    between the exponential and the logarithmic map.

    Args:
        x: Space components of points (length).
        a: Down-projection A.
        b: Up-projection B.

    Returns:
        Space components of the moved points (length).
    """
    return x @ a.T @ b.T


def clip_to_ball(
    x: Float[Tensor, "*batch dim"], radius: Float[Tensor, ""]
) -> Float[Tensor, "*batch dim"]:
    """Shorten the vectors that are longer than ``radius`` to that length."""
    norm = _norm(x)
    is_outside = norm > radius
    return torch.where(is_outside, x * (radius / torch.where(is_outside, norm, 1.0)), x)


def low_rank_update(
    x: Float[Tensor, "*batch d_in"],
    a: Float[Tensor, "r d_in"],
    b: Float[Tensor, "d_out r"],
    curvature: Float[Tensor, ""],
    norm_scale: float,
    radius_cap: float,
) -> Float[Tensor, "*batch d_out"]:
    """Compute HypLoRA's update of a linear layer through the maps, one after the other.

    ``nu * logmap0(LLR(expmap0(clip(x / nu))))``: what the adapter adds before alpha / r.

    Args:
        x: Inputs of the layer (length).
        a: Down-projection A.
        b: Up-projection B.
        curvature: ``K > 0`` in units of ``norm_scale`` squared.
        norm_scale: ``nu``: the unit in which the maps measure ``x`` (length).
        radius_cap: Largest ``|x| / (nu sqrt(K))``; longer inputs are clipped to it.

    Returns:
        The update (length).

    Raises:
        GeometryError: If ``x`` is in half precision.
    """
    tangent = clip_to_ball(x / norm_scale, radius_cap * curvature.sqrt())
    moved = low_rank_transform(expmap0(tangent, curvature), a, b)
    return norm_scale * logmap0(moved, curvature)


def _norm(x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch 1"]:
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True)

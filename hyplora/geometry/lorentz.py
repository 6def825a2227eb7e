"""The Lorentz model: points, distances, maps at the origin and the Lorentz low-rank transformation.

The readable form of the method, one function a map; `hyplora.gain` is the closed form that the
adapter computes and is tested against this module.

Points lie on the hyperboloid ``{(t, s) : -t^2 + |s|^2 = -K, t > 0}`` of sectional curvature
``-1/K`` and origin ``(sqrt(K), 0)``. A point is given by its space components ``s`` alone, from
which `time_component` restores ``t``; `inner` and `project` alone take ambient vectors ``(t, s)``,
the time component first. A tangent vector at the origin is given by its space components, too: its
time component is zero.

Values and gradients hold at the origin and from ``tiny / eps`` of `torch.finfo` on to the largest
radius whose sinh the dtype holds.

Source:
    Yang et al. 2024, arXiv:2410.04010, same convention for K.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hyplora.geometry.numerics import arsinh, arsinhc, require_full_precision, sinhc

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

    Source:
        The constraint itself: Yang et al. 2024, arXiv:2410.04010, same convention for K.
    """
    require_full_precision(x)
    return torch.hypot(_norm(x), curvature.sqrt())


def inner(
    p: Float[Tensor, "*batch dim+1"], q: Float[Tensor, "*batch dim+1"]
) -> Float[Tensor, "*batch 1"]:
    """Multiply ambient vectors with the Lorentzian inner product.

    For points far out it is a small difference of large squares, exact to rounding errors of
    ``t_p t_q``: take `distance` for distances.

    Args:
        p: Ambient vectors, the time component first (length).
        q: Ambient vectors, the time component first (length).

    Returns:
        ``<p, q> = -t_p t_q + s_p s_q`` (length^2); ``-K`` for a point with itself.

    Raises:
        GeometryError: If ``p`` or ``q`` is in half precision.

    Source:
        Nickel and Kiela 2018, arXiv:1806.03417, section 3.1.
    """
    require_full_precision(p)
    require_full_precision(q)
    products = p * q
    return products[..., 1:].sum(dim=-1, keepdim=True) - products[..., :1]


def project(
    p: Float[Tensor, "*batch dim+1"], curvature: Float[Tensor, ""]
) -> Float[Tensor, "*batch dim+1"]:
    """Put ambient points that rounding moved off the hyperboloid back onto it.

    Keeps the space components and computes the time component from them, whatever it was.

    Args:
        p: Ambient points, the time component first (length).
        curvature: ``K > 0`` (length^2).

    Returns:
        Ambient points on the hyperboloid (length).

    Raises:
        GeometryError: If ``p`` is in half precision.

    Source:
        Yang et al. 2024, arXiv:2410.04010, which restores the time component like this.
    """
    space = p[..., 1:]
    return torch.cat([time_component(space, curvature), space], dim=-1)


def expmap0(
    tangent: Float[Tensor, "*batch dim"], curvature: Float[Tensor, ""]
) -> Float[Tensor, "*batch dim"]:
    """Map tangent vectors at the origin to points on the hyperboloid.

    Overflows with its result: for ``K = 1`` from a radius of 89 on in float32, 710 in float64.

    Args:
        tangent: Tangent vectors at the origin (length).
        curvature: ``K > 0`` (length^2).

    Returns:
        ``sqrt(K) * sinh(|v| / sqrt(K)) * v / |v|`` (length): space components of points, each as
        far from the origin as its tangent vector is long.

    Raises:
        GeometryError: If ``tangent`` is in half precision.

    Source:
        Yang et al. 2024, arXiv:2410.04010, same convention for K.
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
        ``sqrt(K) * arsinh(|s| / sqrt(K)) * s / |s|``: tangent vectors (length); each norm is that
        point's distance from the origin.

    Raises:
        GeometryError: If ``x`` is in half precision.

    Source:
        Yang et al. 2024, arXiv:2410.04010, same convention for K.
    """
    require_full_precision(x)
    return x * arsinhc(_norm(x) / curvature.sqrt())


def distance0(
    x: Float[Tensor, "*batch dim"], curvature: Float[Tensor, ""]
) -> Float[Tensor, "*batch 1"]:
    """Measure the geodesic distance of points from the origin.

    At the origin itself, where the distance has a kink, the gradient is zero.

    Args:
        x: Space components of points (length).
        curvature: ``K > 0`` (length^2).

    Returns:
        ``sqrt(K) * arcosh(t / sqrt(K))`` (length), by way of arsinh, which keeps its digits near
        the origin.

    Raises:
        GeometryError: If ``x`` is in half precision.

    Source:
        Yang et al. 2024, arXiv:2410.04010, same convention for K.
    """
    require_full_precision(x)
    return curvature.sqrt() * arsinh(_norm(x) / curvature.sqrt())


def distance(
    x: Float[Tensor, "*batch dim"], y: Float[Tensor, "*batch dim"], curvature: Float[Tensor, ""]
) -> Float[Tensor, "*batch 1"]:
    """Measure the geodesic distance between points.

    ``2 sqrt(K) arsinh(c)`` with half the chord ``c``, which is ``sinh(d / (2 sqrt(K)))``. The law
    of haversines splits it into a radial and a turning part that cannot cancel each other,

        c^2 = sinh((rho_x - rho_y) / 2)^2 + sinh(rho_x) sinh(rho_y) sin(angle / 2)^2,

    with the radii ``rho = distance0 / sqrt(K)``. Both parts are computed from ``x - y``, so that
    near points keep their digits: the relative error is a few roundings times cosh(rho), as large
    as what rounding ``x`` itself does. Equal points have distance zero exactly. There, where the
    distance has a kink, the gradient is zero.

    Args:
        x: Space components of points (length).
        y: Space components of points (length).
        curvature: ``K > 0`` (length^2).

    Returns:
        ``sqrt(K) * arcosh(-<x, y> / K)`` (length).

    Raises:
        GeometryError: If ``x`` or ``y`` is in half precision.

    Source:
        Distance: Nickel and Kiela 2018, arXiv:1806.03417, section 3.1. Haversine form: from the
        hyperbolic law of cosines by ``cosh(d) - 1 = 2 sinh(d / 2)^2``.
    """
    require_full_precision(x)
    require_full_precision(y)
    radius = curvature.sqrt()
    # The smallest normal number stands in for the norm of the origin, which has no direction: the
    # quotients below then have their limits in value and gradient.
    smallest = torch.finfo(x.dtype).tiny
    x_norm, y_norm = _norm(x / radius).clamp(min=smallest), _norm(y / radius).clamp(min=smallest)
    is_x_near = x_norm < y_norm
    near, far = torch.where(is_x_near, x, y), torch.where(is_x_near, y, x)
    near_norm = torch.where(is_x_near, x_norm, y_norm)
    far_norm = torch.where(is_x_near, y_norm, x_norm)
    difference = (far - near) / radius  # before the division: between near points it is exact
    middle = (far + near) / radius / (far_norm + near_norm)
    gap = (difference * middle).sum(dim=-1, keepdim=True)  # far_norm - near_norm to the last digit
    radial = gap / (2 * torch.cosh((arsinh(far_norm) + arsinh(near_norm)) / 2))
    # The difference of the directions, 2 sin(angle / 2) long, times sqrt(far_norm * near_norm).
    far_root, near_root = far_norm.sqrt(), near_norm.sqrt()
    turning = difference * (near_root / far_root) - near / radius / near_root * (gap / far_root)
    half_chord = _norm(torch.cat([radial, turning / 2], dim=-1))
    return 2 * radius * arsinh(half_chord)


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

    Raises:
        GeometryError: If ``x`` is in half precision.

    Source:
        Yang et al. 2024, arXiv:2410.04010.
    """
    require_full_precision(x)
    return x @ a.T @ b.T


def clip_to_ball(
    x: Float[Tensor, "*batch dim"], radius: Float[Tensor, ""]
) -> Float[Tensor, "*batch dim"]:
    """Shorten the vectors that are longer than ``radius`` to that length.

    Args:
        x: Vectors (length).
        radius: Largest norm that stays as it is (length).

    Returns:
        ``x * min(1, radius / |x|)`` (length).

    Raises:
        GeometryError: If ``x`` is in half precision.

    Source:
        The radius cap of the authors' released code for Yang et al. 2024, arXiv:2410.04010.
    """
    require_full_precision(x)
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

    Source:
        Yang et al. 2024, arXiv:2410.04010; the norm scale and the radius cap are of their code.
    """
    tangent = clip_to_ball(x / norm_scale, radius_cap * curvature.sqrt())
    moved = low_rank_transform(expmap0(tangent, curvature), a, b)
    return norm_scale * logmap0(moved, curvature)


def _norm(x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch 1"]:
    """Measure vectors whose squares may overflow or underflow; the gradient at zero is zero."""
    largest = x.detach().abs().amax(dim=-1, keepdim=True)
    scale = largest.clamp(min=torch.finfo(x.dtype).tiny)
    return scale * torch.linalg.vector_norm(x / scale, dim=-1, keepdim=True)

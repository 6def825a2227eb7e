"""The closed form of HypLoRA: a LoRA whose update is scaled by a radial gain.

The way into hyperbolic space acts along ``x`` and the way back along ``u = BAx``, so the whole
chain of maps multiplies ``u`` by one number a token. It depends on two lengths alone, measured in
a unit that the projection knows: ``tau = |x| / unit`` and ``mu = |u| / unit``,

    g = c(tau) psi(c(tau) mu),

with ``c`` the factor of the way in and ``psi`` that of the way back. docs/method.md derives it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Protocol, TypeVar

import torch
from torch import Tensor

from hyplora.geometry.numerics import arsinh_scaled_exp, log_sinhc, require_full_precision

if TYPE_CHECKING:
    from jaxtyping import Float

    Scalar = float | Float[Tensor, 1]

Length = TypeVar("Length", float, Tensor)

LARGEST_RADIUS_CAP: Final = 20.0
"""Radius up to which sinh and the powers of it that gradients hold stay far inside float32."""


class Projection(Protocol):
    """How hidden states are taken to hyperbolic space and back.

    ``curvature`` is ``K > 0`` in units of ``norm_scale`` squared, and ``norm_scale`` is ``nu > 0``,
    the unit in which the maps measure ``x``; each is a number, or a tensor of one element where
    it is learned. ``tau`` and ``c mu`` are at least `smallest_length`. Lengths are tensors of shape
    ``*batch`` in float32 or float64; or single numbers, with which Python computes several times
    faster.
    """

    unit_exponent: ClassVar[float]
    """``d log unit / d log K``."""

    def unit(self, curvature: Scalar, norm_scale: Scalar) -> Scalar:
        """Return the unit of ``tau`` and ``mu`` (length)."""

    def way_in(self, tau: Length, curvature: Scalar) -> Length:
        """Compute ``c``, by how much the way in stretches ``x``."""

    def way_in_slope(
        self, tau: Float[Tensor, "*batch"], c: Float[Tensor, "*batch"], curvature: Scalar
    ) -> Float[Tensor, "*batch"]:
        """Compute ``2 dc / d(tau^2)``: squared, because a norm has no gradient at zero."""

    def gain(self, c: Length, mu: Length, curvature: Scalar) -> Length:
        """Compute ``g = c psi(c mu)``."""

    def way_back_slope(
        self, v: Float[Tensor, "*batch"], curvature: Scalar
    ) -> Float[Tensor, "*batch"]:
        """Compute ``chi = d(v psi(v)) / dv`` at ``v = c mu``: ``dg / d log c`` is ``c chi``."""

    def curvature_slope(
        self,
        tau: Float[Tensor, "*batch"],
        c: Float[Tensor, "*batch"],
        mu: Float[Tensor, "*batch"],
        curvature: Scalar,
    ) -> Float[Tensor, "*batch"]:
        """Compute ``dg / d log K`` at fixed ``tau`` and ``mu``."""


def smallest_length(dtype: torch.dtype) -> float:
    """Return the ``tau`` or ``c mu`` that stands in for zero, so that one can divide by it.

    The gain changes with their squares: below the root of epsilon it has its limit at zero to the
    last digit, and its slopes there would be rounding alone.
    """
    return torch.finfo(dtype).eps ** 0.5


def radial_gain(
    projection: Projection,
    x_norm: Float[Tensor, "*batch"],
    update_norm: Float[Tensor, "*batch"],
    curvature: Scalar,
    norm_scale: Scalar,
) -> Float[Tensor, "*batch"]:
    """Compute the factor by which a token's update differs from LoRA's.

    Args:
        projection: The ways there and back.
        x_norm: ``|x|``: norms of the layer's inputs (length).
        update_norm: ``|BAx|``: norms of the update before alpha / r (length).
        curvature: ``K > 0`` in units of ``norm_scale`` squared.
        norm_scale: ``nu``: the unit in which the maps measure ``x`` (length).

    Returns:
        ``g > 0``, to a few roundings.

    Raises:
        GeometryError: If the norms are in half precision.
    """
    require_full_precision(x_norm)
    unit, smallest = projection.unit(curvature, norm_scale), smallest_length(x_norm.dtype)
    c = projection.way_in((x_norm / unit).clamp(min=smallest), curvature)
    return projection.gain(c, torch.maximum(update_norm / unit, smallest / c), curvature)


@dataclass(frozen=True)
class Lorentz:
    """The paper's projection: exponential map, Lorentz transformation, logarithmic map.

    Lengths are in radii of the hyperboloid, ``nu sqrt(K)``, and K does not enter otherwise:

        c = sinh(min(tau, radius_cap)) / tau,        g = arsinh(c mu) / mu.

    Source:
        Closed form of the maps of Yang et al. 2024, arXiv:2410.04010.
    """

    radius_cap: float
    """Largest ``tau`` that the exponential map sees; longer inputs are clipped to it."""

    unit_exponent: ClassVar[float] = 0.5

    def unit(self, curvature: Scalar, norm_scale: Scalar) -> Scalar:
        """Return ``nu sqrt(K)``."""
        return norm_scale * curvature**0.5

    def way_in(self, tau: Length, curvature: Scalar) -> Length:
        """Compute ``c``."""
        if isinstance(tau, float):
            return math.sinh(min(tau, self.radius_cap)) / tau
        return tau.clamp(max=self.radius_cap).sinh() / tau

    def way_in_slope(
        self, tau: Float[Tensor, "*batch"], c: Float[Tensor, "*batch"], curvature: Scalar
    ) -> Float[Tensor, "*batch"]:
        """Compute ``(d(tau c)/dtau - c) / tau^2``; beyond the cap ``tau c`` is constant."""
        cosh = tau.clamp(max=self.radius_cap).cosh() * (tau <= self.radius_cap)
        return (cosh - c) / tau.square()

    def gain(self, c: Length, mu: Length, curvature: Scalar) -> Length:
        """Compute ``arsinh(c mu) / mu``."""
        if isinstance(mu, float):
            return math.asinh(c * mu) / mu
        return (c * mu).asinh() / mu

    def way_back_slope(
        self, v: Float[Tensor, "*batch"], curvature: Scalar
    ) -> Float[Tensor, "*batch"]:
        """Compute ``1 / sqrt(1 + v^2)``."""
        return (1 + v.square()).rsqrt()

    def curvature_slope(
        self,
        tau: Float[Tensor, "*batch"],
        c: Float[Tensor, "*batch"],
        mu: Float[Tensor, "*batch"],
        curvature: Scalar,
    ) -> Float[Tensor, "*batch"]:
        """Return zero: K is in the unit alone."""
        return torch.zeros_like(mu)


@dataclass(frozen=True)
class Stereographic:
    """The authors' simplified variant, a projection between the hyperboloid and the Poincare ball.

    Lengths are in units of ``nu``. ``x`` becomes ``2x / (1 + K tau^2)``, LLR restores
    ``t = sqrt(|v|^2 + K)`` of its image ``v``, which returns as ``v / (1 + sqrt(K) t)``:

        c = 2 / (1 + K tau^2),        g = c / (1 + sqrt(K) t),        t = sqrt((c mu)^2 + K).

    At zero the gain is ``2 / (1 + K)``: unlike the Lorentz projection this one shrinks the update
    as K grows. It has no radius cap, since ``c tau`` is bounded.

    Source:
        ``hyplora_simplified`` in the released code of Yang et al. 2024, arXiv:2410.04010.
    """

    unit_exponent: ClassVar[float] = 0.0

    def unit(self, curvature: Scalar, norm_scale: Scalar) -> Scalar:
        """Return ``nu``."""
        return norm_scale

    def way_in(self, tau: Length, curvature: Scalar) -> Length:
        """Compute ``c``."""
        return 2 / (1 + curvature * tau**2)  # type: ignore[return-value]

    def way_in_slope(
        self, tau: Float[Tensor, "*batch"], c: Float[Tensor, "*batch"], curvature: Scalar
    ) -> Float[Tensor, "*batch"]:
        """Compute ``-K c^2``."""
        return -curvature * c.square()

    def gain(self, c: Length, mu: Length, curvature: Scalar) -> Length:
        """Compute ``c / (1 + sqrt(K) t)``."""
        t = ((c * mu) ** 2 + curvature) ** 0.5
        return c / (1 + curvature**0.5 * t)  # type: ignore[return-value]

    def way_back_slope(
        self, v: Float[Tensor, "*batch"], curvature: Scalar
    ) -> Float[Tensor, "*batch"]:
        """Compute ``psi - psi^2 sqrt(K) v^2 / t = psi^2 (1 + sqrt(K) K / t)``."""
        t = (v.square() + curvature).sqrt()
        return (1 + curvature**1.5 / t) / (1 + curvature**0.5 * t).square()

    def curvature_slope(
        self,
        tau: Float[Tensor, "*batch"],
        c: Float[Tensor, "*batch"],
        mu: Float[Tensor, "*batch"],
        curvature: Scalar,
    ) -> Float[Tensor, "*batch"]:
        """Compute ``chi dc/dlogK + c dpsi/dlogK``; c knows K as ``K tau^2`` alone."""
        v = c * mu
        t = (v.square() + curvature).sqrt()
        by_c = self.way_back_slope(v, curvature) * tau.square() / 2
        by_psi = c * curvature**0.5 * (t + curvature / t) / 2 / (1 + curvature**0.5 * t).square()
        return by_c * self.way_in_slope(tau, c, curvature) - by_psi


@dataclass(frozen=True)
class Euclidean:
    """Flat space, where every gain is 1: plain LoRA, for ablations."""

    unit_exponent: ClassVar[float] = 0.0

    def unit(self, curvature: Scalar, norm_scale: Scalar) -> Scalar:
        """Return ``nu``."""
        return norm_scale

    def way_in(self, tau: Length, curvature: Scalar) -> Length:
        """Return 1."""
        return 1.0 if isinstance(tau, float) else torch.ones_like(tau)

    def way_in_slope(
        self, tau: Float[Tensor, "*batch"], c: Float[Tensor, "*batch"], curvature: Scalar
    ) -> Float[Tensor, "*batch"]:
        """Return 0."""
        return torch.zeros_like(tau)

    def gain(self, c: Length, mu: Length, curvature: Scalar) -> Length:
        """Return 1."""
        return 1.0 if isinstance(mu, float) else torch.ones_like(mu)

    def way_back_slope(
        self, v: Float[Tensor, "*batch"], curvature: Scalar
    ) -> Float[Tensor, "*batch"]:
        """Return 1."""
        return torch.ones_like(v)

    def curvature_slope(
        self,
        tau: Float[Tensor, "*batch"],
        c: Float[Tensor, "*batch"],
        mu: Float[Tensor, "*batch"],
        curvature: Scalar,
    ) -> Float[Tensor, "*batch"]:
        """Return 0."""
        return torch.zeros_like(mu)


def lorentz_gain(
    x_norm: Float[Tensor, "*batch"],
    update_norm: Float[Tensor, "*batch"],
    curvature: Scalar,
    norm_scale: float,
    radius_cap: float = math.inf,
) -> Float[Tensor, "*batch"]:
    """Compute the Lorentz gain of inputs as far out as one likes.

    `Lorentz` computes ``c``, which overflows float32 beyond a radius of 89; this takes its
    logarithm, so that only a gain that itself leaves the dtype overflows.

    Args:
        x_norm: ``n = |x|`` (length).
        update_norm: ``m = |BAx|`` (length).
        curvature: ``K > 0`` in units of ``norm_scale`` squared.
        norm_scale: ``nu`` (length).
        radius_cap: Largest ``tau`` that the exponential map sees.

    Returns:
        ``g > 0``: 1 in flat space (K to infinity), ``c`` at B = 0.

    Raises:
        GeometryError: If the norms are in half precision.
    """
    require_full_precision(x_norm)
    smallest = torch.finfo(x_norm.dtype).tiny
    radius = norm_scale * curvature**0.5
    tau = (x_norm / radius).clamp(min=smallest)
    mu = (update_norm / radius).clamp(min=smallest)
    log_factor = log_sinhc(tau.clamp(max=radius_cap)) - (tau / radius_cap).clamp(min=1).log()
    return arsinh_scaled_exp(mu, log_factor) / mu

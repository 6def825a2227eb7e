"""How tree-like point clouds are: Gromov's delta, absolute and relative to their extent.

A relative delta of 0 is a tree, in which distances add up along branches; larger values are
further from one. The four-point condition with delta at one base point implies it with at most
2 delta at every other (Gromov 1987), so single base points agree within a factor of two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from hyplora.analysis.gromov import delta_of_products, gromov_products, pairwise_distances
from hyplora.errors import AnalysisError

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True)
class Sampling:
    """Which points of a cloud are looked at, and from where."""

    num_base_points: int = 1
    """Base points, drawn among the points; fewer where there are fewer points."""
    max_points: int | None = None
    """Larger clouds are thinned to so many points at random; None takes all."""
    seed: int = 0
    """Of both draws."""


ALL_POINTS: Final = Sampling()
"""Every point, from one base point."""


@dataclass(frozen=True)
class Hyperbolicity:
    """The hyperbolicity of one cloud."""

    num_points: int
    """Points looked at."""
    num_left_out: int
    """Points that thinning took away."""
    diameter: float
    """Largest distance (length)."""
    delta: float
    """Mean over the base points (length)."""
    smallest_delta: float
    """At the base point where it is smallest (length)."""
    largest_delta: float
    """At the base point where it is largest (length)."""
    relative: float
    """``2 delta / diameter``, from 0 for a tree to 1."""


@dataclass(frozen=True)
class HyperbolicitySummary:
    """The hyperbolicity of several clouds, such as one a prompt."""

    num_clouds: int
    """Clouds measured."""
    num_skipped: int
    """Clouds without two distinct points."""
    mean_relative: float | None
    """Mean of the relative deltas; None if there is no cloud."""
    sd_relative: float | None
    """Their standard deviation; None if there are fewer than two clouds."""
    mean_delta: float | None
    """Mean of the deltas (length)."""
    sd_delta: float | None
    """Their standard deviation (length)."""
    clouds: tuple[Hyperbolicity | None, ...]
    """Each in the order given; None where it was skipped."""


def measure_hyperbolicity(
    points: Float[Tensor, "n dim"],
    sampling: Sampling = ALL_POINTS,
    dtype: torch.dtype = torch.float32,
) -> Hyperbolicity:
    """Measure the hyperbolicity of points under Euclidean distance.

    Args:
        points: Coordinates (length); repeated points change nothing but the draws.
        sampling: Which points are looked at, and from where.
        dtype: Precision of the distances.

    Raises:
        AnalysisError: If no two points differ, or a coordinate is not finite.

    Source:
        Definition as in Yang et al. 2024, arXiv:2410.04010; relative to the diameter as in
        Borassi, Chessa and Caldarelli 2015, arXiv:1503.03061.
    """
    generator = torch.Generator().manual_seed(sampling.seed)
    kept = torch.randperm(len(points), generator=generator)[: sampling.max_points]
    distances = pairwise_distances(points[kept.sort().values.to(points.device)], dtype)
    return measure_metric(distances, sampling, num_left_out=len(points) - len(kept))


def measure_metric(
    distances: Float[Tensor, "n n"],
    sampling: Sampling = ALL_POINTS,
    num_left_out: int = 0,
) -> Hyperbolicity:
    """Measure the hyperbolicity of a metric space, such as a graph's, without thinning it.

    Args:
        distances: Symmetric, zero on the diagonal, finite (length).
        sampling: Its base points and seed are used.
        num_left_out: Recorded with the result.

    Raises:
        AnalysisError: If no two points have a distance.
    """
    diameter = float(distances.amax()) if len(distances) else 0.0
    if diameter == 0:
        raise AnalysisError(
            f"hyperbolicity needs two distinct points; got {len(distances)} points at one place"
        )
    generator = torch.Generator().manual_seed(sampling.seed)
    bases = torch.randperm(len(distances), generator=generator)[: sampling.num_base_points]
    deltas = [delta_of_products(gromov_products(distances, base)) for base in bases.tolist()]
    delta = fmean(deltas)
    return Hyperbolicity(
        num_points=len(distances),
        num_left_out=num_left_out,
        diameter=diameter,
        delta=delta,
        smallest_delta=min(deltas),
        largest_delta=max(deltas),
        relative=2 * delta / diameter,
    )


def measure_clouds(
    clouds: Iterable[Float[Tensor, "n dim"]],
    sampling: Sampling = ALL_POINTS,
) -> HyperbolicitySummary:
    """Measure clouds one by one; those without two distinct points are counted as skipped."""
    return summarize([_measure_or_skip(points, sampling) for points in clouds])


def summarize(clouds: Sequence[Hyperbolicity | None]) -> HyperbolicitySummary:
    """Condense measurements to their means and standard deviations."""
    measured = [cloud for cloud in clouds if cloud is not None]
    relatives = [cloud.relative for cloud in measured]
    deltas = [cloud.delta for cloud in measured]
    return HyperbolicitySummary(
        num_clouds=len(measured),
        num_skipped=len(clouds) - len(measured),
        mean_relative=fmean(relatives) if measured else None,
        sd_relative=stdev(relatives) if len(measured) > 1 else None,
        mean_delta=fmean(deltas) if measured else None,
        sd_delta=stdev(deltas) if len(measured) > 1 else None,
        clouds=tuple(clouds),
    )


def _measure_or_skip(points: Float[Tensor, "n dim"], sampling: Sampling) -> Hyperbolicity | None:
    if len(points) < 2 or bool((points == points[0]).all()):
        return None
    return measure_hyperbolicity(points, sampling)

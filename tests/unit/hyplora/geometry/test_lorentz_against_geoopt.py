"""Compare with geoopt's Lorentz manifold, whose ``k`` is our ``K``, where it keeps its digits.

Its norms are clamped at 1e-4 and its arcosh at 3e-8, so radii stay away from the origin here.
"""

import warnings

import pytest
import torch
from torch import Tensor

from hyplora.geometry.lorentz import distance, distance0, expmap0, inner, logmap0, project
from tests.unit.hyplora.geometry.points import ambient, point_at, scalar, vector_at

with warnings.catch_warnings():
    # geoopt 0.5.1 compiles its functions by torch.jit.script, which torch 2.13 deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    import geoopt

CURVATURES = pytest.mark.parametrize("curvature", [1e-3, 0.1, 0.5, 1.0, 10.0, 1e3, 1e4])
RADII = pytest.mark.parametrize("radius", [0.1, 1.0, 3.0, 7.0])


def lorentz(curvature: float) -> geoopt.Lorentz:
    return geoopt.Lorentz(k=scalar(curvature))


def assert_equal(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@CURVATURES
@RADII
def test_exponential_map_is_geoopts(radius: float, curvature: float) -> None:
    k, tangent = scalar(curvature), vector_at(radius, curvature, seed=0)
    theirs = lorentz(curvature).expmap0(torch.nn.functional.pad(tangent, (1, 0)))
    assert_equal(ambient(expmap0(tangent, k), k), theirs)


@CURVATURES
@RADII
def test_logarithmic_map_is_geoopts(radius: float, curvature: float) -> None:
    k, x = scalar(curvature), point_at(radius, curvature, seed=1)
    theirs = lorentz(curvature).logmap0(ambient(x, k))
    assert_equal(logmap0(x, k), theirs[1:])


@CURVATURES
@RADII
def test_distances_are_geoopts(radius: float, curvature: float) -> None:
    k, manifold = scalar(curvature), lorentz(curvature)
    x, y = point_at(radius, curvature, seed=2), point_at(1.5, curvature, seed=3)
    p, q = ambient(x, k), ambient(y, k)
    assert_equal(distance(x, y, k), manifold.dist(p, q, keepdim=True))
    assert_equal(distance0(x, k), manifold.dist0(p, keepdim=True))


@CURVATURES
@RADII
def test_inner_product_is_geoopts(radius: float, curvature: float) -> None:
    p, q = vector_at(radius, curvature, seed=4), vector_at(1.5, curvature, seed=5)
    assert_equal(inner(p, q), lorentz(curvature).inner(None, p, q, keepdim=True))


@CURVATURES
@RADII
def test_projection_is_geoopts(radius: float, curvature: float) -> None:
    p = vector_at(radius, curvature, seed=6)
    assert_equal(project(p, scalar(curvature)), lorentz(curvature).projx(p))

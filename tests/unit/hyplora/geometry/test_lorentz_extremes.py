"""Compare with formulas evaluated to 700 digits, from tiny radii to where sinh nearly overflows."""

import math
from collections.abc import Callable, Iterator

import mpmath
import pytest
import torch
from torch import Tensor

from hyplora.geometry.lorentz import distance, distance0, expmap0, logmap0, time_component
from tests.unit.hyplora.geometry.points import point_at, scalar, vector_at

CURVATURES = pytest.mark.parametrize("curvature", [1e-3, 1.0, 1e4])
# The largest radii leave room for sqrt(K) = 100.
FLOAT32_RADII = [0.0, 1e-30, 1e-8, 1.0, 20.0, 84.0]
FLOAT64_RADII = [0.0, 1e-290, 1e-160, 1e-8, 1.0, 20.0, 300.0, 705.0]
EXTREME_RADII = pytest.mark.parametrize(
    ("dtype", "radius"),
    [(torch.float32, radius) for radius in FLOAT32_RADII]
    + [(torch.float64, radius) for radius in FLOAT64_RADII],
)


@pytest.fixture(autouse=True)
def many_digits() -> Iterator[None]:
    with mpmath.workdps(700):
        yield


def exact_vector(x: Tensor) -> list[mpmath.mpf]:
    return [mpmath.mpf(component) for component in x.tolist()]


def exact_norm(x: Tensor) -> mpmath.mpf:
    return mpmath.norm(exact_vector(x))


def exact_time(x: Tensor, curvature: Tensor) -> mpmath.mpf:
    return mpmath.hypot(exact_norm(x), mpmath.sqrt(curvature.item()))


def exact_radial(function: Callable[[mpmath.mpf], mpmath.mpf], x: Tensor, k: Tensor) -> Tensor:
    """Give x the length ``sqrt(K) function(|x| / sqrt(K))``."""
    length, unit = exact_norm(x), mpmath.sqrt(k.item())
    stretch = unit * function(length / unit) / length if length else 1
    return torch.tensor([float(stretch * c) for c in exact_vector(x)], dtype=torch.float64)


def exact_cosh(x: Tensor, y: Tensor, curvature: Tensor) -> mpmath.mpf:
    times = exact_time(x, curvature) * exact_time(y, curvature)
    return (times - mpmath.fdot(exact_vector(x), exact_vector(y))) / mpmath.mpf(curvature.item())


def exact_distance(x: Tensor, y: Tensor, curvature: Tensor) -> float:
    return float(mpmath.sqrt(curvature.item()) * mpmath.acosh(exact_cosh(x, y, curvature)))


def exact_distance_gradient(x: Tensor, y: Tensor, curvature: Tensor) -> Tensor:
    """Differentiate the distance by x, at x."""
    slope = exact_time(y, curvature) / exact_time(x, curvature)
    sinh = mpmath.sqrt(exact_cosh(x, y, curvature) ** 2 - 1)
    unit = mpmath.sqrt(curvature.item()) * sinh
    components = zip(exact_vector(x), exact_vector(y), strict=True)
    gradient = [float((slope * c - d) / unit) for c, d in components]
    return torch.tensor(gradient, dtype=torch.float64)


def assert_near(value: Tensor, expected: Tensor | float, num_roundings: float) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64).expand(value.shape)
    tolerance = num_roundings * torch.finfo(value.dtype).eps * expected.abs().max()
    assert (value.double() - expected).abs().max() <= tolerance


@CURVATURES
@EXTREME_RADII
def test_exponential_map_is_exact(dtype: torch.dtype, radius: float, curvature: float) -> None:
    tangent, k = vector_at(radius, curvature, seed=0).to(dtype), scalar(curvature, dtype)
    expected = exact_radial(mpmath.sinh, tangent, k)
    # Rounding |v| / sqrt(K) alone costs as many roundings as the radius counts.
    assert_near(expmap0(tangent, k), expected, num_roundings=4 + 4 * radius)


@CURVATURES
@EXTREME_RADII
def test_maps_back_to_the_origin_are_exact(
    dtype: torch.dtype, radius: float, curvature: float
) -> None:
    x, k = point_at(radius, curvature, seed=1, dtype=dtype), scalar(curvature, dtype)
    tangent = exact_radial(mpmath.asinh, x, k)
    assert_near(logmap0(x, k), tangent, num_roundings=8)
    length = float(mpmath.sqrt(k.item()) * mpmath.asinh(exact_norm(x) / mpmath.sqrt(k.item())))
    assert_near(distance0(x, k), length, num_roundings=8)
    assert_near(time_component(x, k), float(exact_time(x, k)), num_roundings=8)


@CURVATURES
@EXTREME_RADII
@pytest.mark.parametrize("share", [-1.0, 0.0, 1e-6, 0.5])
def test_distance_of_points_apart_is_exact_in_value_and_gradient(
    share: float, dtype: torch.dtype, radius: float, curvature: float
) -> None:
    x = point_at(radius, curvature, seed=2, dtype=dtype).requires_grad_()
    y = point_at(share * radius, curvature, seed=3, dtype=dtype).requires_grad_()
    k = scalar(curvature, dtype)
    value = distance(x, y, k)
    gradients = torch.autograd.grad(value, (x, y))
    if radius == 0:
        assert value.item() == 0
        return
    assert_near(value, exact_distance(x, y, k), num_roundings=16)
    for gradient, expected in zip(
        gradients, (exact_distance_gradient(x, y, k), exact_distance_gradient(y, x, k)), strict=True
    ):
        assert_near(gradient, expected, num_roundings=64 + 4 * radius)


@CURVATURES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("radius", [1e-20, 1e-3, 1.0, 6.0, 12.0])
@pytest.mark.parametrize("num_steps", [1, 10, 10_000])
def test_distance_of_near_points_keeps_its_digits(
    num_steps: int, radius: float, dtype: torch.dtype, curvature: float
) -> None:
    # The arcosh form sees none of these distances: they change cosh(d) by less than its rounding.
    x, k = point_at(radius, curvature, seed=4, dtype=dtype), scalar(curvature, dtype)
    shift = num_steps * torch.finfo(dtype).eps * torch.tensor([1, -1, 2, 0, 3, -2], dtype=dtype)
    y = x * (1 + shift)
    expected = exact_distance(x, y, k)
    assert_near(distance(x, y, k), expected, num_roundings=16 * math.cosh(radius))


@CURVATURES
@pytest.mark.parametrize(("dtype", "radius"), [(torch.float32, 12.0), (torch.float64, 30.0)])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_distance_along_a_ray_loses_no_more_than_rounding_a_point_does(
    share: float, dtype: torch.dtype, radius: float, curvature: float
) -> None:
    x, k = point_at(radius, curvature, seed=5, dtype=dtype), scalar(curvature, dtype)
    y = x * share
    expected = exact_distance(x, y, k)
    assert_near(distance(x, y, k), expected, num_roundings=16 * math.cosh(radius))

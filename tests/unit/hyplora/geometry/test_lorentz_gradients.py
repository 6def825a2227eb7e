from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hyplora.geometry.lorentz import (
    clip_to_ball,
    distance,
    distance0,
    expmap0,
    inner,
    logmap0,
    low_rank_transform,
    low_rank_update,
    project,
    time_component,
)
from tests.unit.hyplora.geometry.points import CURVATURES, DTYPES, point_at, scalar, vector_at

Map = Callable[[Tensor, Tensor], Tensor]

FAR_RADII = [(torch.float32, 15.0), (torch.float32, 80.0)] + [
    (torch.float64, radius) for radius in (20.0, 80.0, 400.0, 690.0)
]
FAR_OUT = pytest.mark.parametrize(("dtype", "radius"), FAR_RADII)


@CURVATURES
@pytest.mark.parametrize("radius", [0.05, 0.35, 1.5, 5.0])
@pytest.mark.parametrize("mapping", [expmap0, logmap0, distance0, time_component, project])
def test_gradients_agree_with_finite_differences(
    mapping: Map, radius: float, curvature: float
) -> None:
    vector = vector_at(radius, curvature, seed=1).requires_grad_()
    k = scalar(curvature).requires_grad_()
    assert torch.autograd.gradcheck(mapping, (vector, k), eps=1e-6 * curvature**0.5, rtol=1e-4)


@CURVATURES
@pytest.mark.parametrize("radii", [(0.5, 0.5), (2.0, 0.1), (0.0, 1.5), (1.5, 0.0), (5.0, 4.0)])
def test_distance_gradients_agree_with_finite_differences(
    radii: tuple[float, float], curvature: float
) -> None:
    x, y = (point_at(r, curvature, seed).requires_grad_() for seed, r in enumerate(radii))
    k = scalar(curvature).requires_grad_()
    assert torch.autograd.gradcheck(distance, (x, y, k), eps=1e-6 * curvature**0.5, rtol=1e-4)


@pytest.mark.parametrize("radius_cap", [1.0, 10.0])
def test_low_rank_gradients_agree_with_finite_differences(radius_cap: float) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 6), (2, 6), (5, 2)]
    x, a, b = (
        torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()
        for shape in shapes
    )
    k = scalar(2.0).requires_grad_()
    assert torch.autograd.gradcheck(low_rank_transform, (x, a, b))
    assert torch.autograd.gradcheck(clip_to_ball, (x, k))
    assert torch.autograd.gradcheck(inner, (x, x.detach().flip(0).requires_grad_()))
    assert torch.autograd.gradcheck(
        lambda *tensors: low_rank_update(*tensors, norm_scale=1.5, radius_cap=radius_cap),
        (x, a, b, k),
    )


@pytest.mark.parametrize("mapping", [expmap0, logmap0, distance0, distance])
def test_second_derivatives_agree_with_finite_differences(mapping: Callable[..., Tensor]) -> None:
    points = [point_at(1.2, 2.0, seed=0), point_at(0.7, 2.0, seed=1)]
    arguments = points if mapping is distance else points[:1]
    inputs = [tensor.requires_grad_() for tensor in (*arguments, scalar(2.0))]
    assert torch.autograd.gradgradcheck(mapping, inputs)


@CURVATURES
@DTYPES
@pytest.mark.parametrize("mapping", [expmap0, logmap0])
def test_maps_have_unit_gradient_at_the_origin(
    mapping: Map, dtype: torch.dtype, curvature: float
) -> None:
    origin = torch.zeros(4, dtype=dtype, requires_grad=True)
    image = mapping(origin, scalar(curvature, dtype))
    (gradient,) = torch.autograd.grad(image.sum(), origin)
    torch.testing.assert_close(gradient, torch.ones_like(origin), rtol=0, atol=0)


@CURVATURES
@DTYPES
@pytest.mark.parametrize("radius", [0.0, 1e-20, 1.0, 30.0])
def test_distance_between_equal_points_has_zero_gradient(
    radius: float, dtype: torch.dtype, curvature: float
) -> None:
    x = point_at(radius, curvature, seed=0, dtype=dtype).requires_grad_()
    y = x.detach().clone().requires_grad_()
    k = scalar(curvature, dtype).requires_grad_()
    gradients = torch.autograd.grad(distance(x, y, k).sum(), (x, y, k))
    assert all(torch.equal(g, torch.zeros_like(g)) for g in gradients)


@CURVATURES
@DTYPES
@pytest.mark.parametrize("radius", [1e-20, 1e-3, 1.0, 30.0, 80.0])
def test_distance_from_the_origin_grows_against_the_direction_of_the_other_point(
    radius: float, dtype: torch.dtype, curvature: float
) -> None:
    x = point_at(radius, curvature, seed=0, dtype=dtype)
    origin = torch.zeros_like(x).requires_grad_()
    (gradient,) = torch.autograd.grad(distance(x, origin, scalar(curvature, dtype)), origin)
    direction = vector_at(1.0, 1.0, seed=0).to(dtype)
    torch.testing.assert_close(gradient, -direction, rtol=0, atol=16 * torch.finfo(dtype).eps)


@CURVATURES
@FAR_OUT
def test_far_out_the_maps_still_undo_each_other_in_the_gradient(
    dtype: torch.dtype, radius: float, curvature: float
) -> None:
    k = scalar(curvature, dtype)
    tangent = vector_at(radius, curvature, seed=5).to(dtype)
    jacobian = torch.autograd.functional.jacobian(lambda v: logmap0(expmap0(v, k), k), tangent)
    atol = 4 * radius * torch.finfo(dtype).eps
    torch.testing.assert_close(jacobian, torch.eye(6, dtype=dtype), rtol=0, atol=atol)


@CURVATURES
@FAR_OUT
def test_far_out_distances_grow_along_the_tangent_vectors(
    dtype: torch.dtype, radius: float, curvature: float
) -> None:
    k = scalar(curvature, dtype)
    directions = [vector_at(1.0, 1.0, seed).to(dtype) for seed in (6, 7)]
    tangents = [(radius * k.sqrt() * d).requires_grad_() for d in directions]
    between = distance(*(expmap0(tangent, k) for tangent in tangents), k)
    for gradient, direction in zip(torch.autograd.grad(between, tangents), directions, strict=True):
        torch.testing.assert_close(
            gradient @ direction, torch.ones_like(k), rtol=0, atol=16 * torch.finfo(dtype).eps
        )

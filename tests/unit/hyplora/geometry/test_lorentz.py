import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hyplora.errors import GeometryError
from hyplora.geometry.lorentz import (
    clip_to_ball,
    distance0,
    expmap0,
    logmap0,
    low_rank_transform,
    low_rank_update,
    time_component,
)

CURVATURES = pytest.mark.parametrize("curvature", [1e-3, 1.0, 10.0, 1e4])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)

radii = st.floats(0, 20)
curvatures = st.floats(1e-3, 1e4)
seeds = st.integers(0, 2**16)


def vector_at(radius: float, curvature: float, seed: int, dim: int = 6) -> Tensor:
    """Draw a vector of length radius * sqrt(K)."""
    direction = torch.randn(dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return direction / direction.norm() * radius * curvature**0.5


def scalar(value: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(value, dtype=dtype)


@given(radius=radii, curvature=curvatures, seed=seeds)
def test_logarithmic_map_undoes_the_exponential_map(
    radius: float, curvature: float, seed: int
) -> None:
    tangent = vector_at(radius, curvature, seed)
    back = logmap0(expmap0(tangent, scalar(curvature)), scalar(curvature))
    torch.testing.assert_close(back, tangent, rtol=1e-12, atol=1e-12)


@given(radius=radii, curvature=curvatures, seed=seeds)
def test_exponential_map_is_the_textbook_curve_on_the_hyperboloid(
    radius: float, curvature: float, seed: int
) -> None:
    tangent, k = vector_at(radius, curvature, seed), scalar(curvature)
    space = expmap0(tangent, k)
    time = time_component(space, k)
    torch.testing.assert_close(time, (k.sqrt() * scalar(radius).cosh()).unsqueeze(0))
    inner = -time.square() + space.square().sum(dim=-1, keepdim=True)
    torch.testing.assert_close(inner / time.square(), -k / time.square(), rtol=0, atol=1e-14)


@given(radius=st.floats(0.1, 15), curvature=curvatures, seed=seeds)
def test_distance_from_the_origin_is_the_length_of_the_tangent_vector(
    radius: float, curvature: float, seed: int
) -> None:
    k = scalar(curvature)
    space = expmap0(vector_at(radius, curvature, seed), k)
    arcosh_form = k.sqrt() * torch.acosh(time_component(space, k) / k.sqrt())
    torch.testing.assert_close(distance0(space, k), (radius * k.sqrt()).unsqueeze(0))
    torch.testing.assert_close(distance0(space, k), arcosh_form, rtol=1e-6, atol=0)


@given(radius=st.floats(0, 15), further=st.floats(1e-6, 5), curvature=curvatures)
def test_longer_tangent_vectors_reach_further_points(
    radius: float, further: float, curvature: float
) -> None:
    k = scalar(curvature)
    near = expmap0(vector_at(radius, curvature, seed=0), k).norm()
    far = expmap0(vector_at(radius + further, curvature, seed=0), k).norm()
    assert near < far


@CURVATURES
@DTYPES
@pytest.mark.parametrize("mapping", [expmap0, logmap0])
def test_maps_have_unit_gradient_at_the_origin(
    mapping: object, dtype: torch.dtype, curvature: float
) -> None:
    assert callable(mapping)
    origin = torch.zeros(4, dtype=dtype, requires_grad=True)
    image = mapping(origin, scalar(curvature, dtype))
    (gradient,) = torch.autograd.grad(image.sum(), origin)
    torch.testing.assert_close(gradient, torch.ones_like(origin), rtol=0, atol=0)


@CURVATURES
@pytest.mark.parametrize("mapping", [expmap0, logmap0, distance0, time_component])
def test_gradients_agree_with_finite_differences(mapping: object, curvature: float) -> None:
    tangent = vector_at(1.5, curvature, seed=1).requires_grad_()
    k = scalar(curvature).requires_grad_()
    assert torch.autograd.gradcheck(mapping, (tangent, k))


def test_curvature_to_infinity_is_flat() -> None:
    tangent, k = vector_at(1.0, 1.0, seed=2), scalar(1e12)
    torch.testing.assert_close(expmap0(tangent, k), tangent)
    torch.testing.assert_close(distance0(tangent, k), tangent.norm().unsqueeze(0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("mapping", [expmap0, logmap0, distance0, time_component])
def test_half_precision_is_refused(mapping: object, dtype: torch.dtype) -> None:
    assert callable(mapping)
    with pytest.raises(GeometryError, match="float32 or float64"):
        mapping(torch.ones(3, dtype=dtype), torch.ones((), dtype=dtype))


def test_only_vectors_outside_the_ball_are_clipped() -> None:
    x = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]], requires_grad=True)
    clipped = clip_to_ball(x, torch.tensor(1.0))
    torch.testing.assert_close(clipped, torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]))
    (gradient,) = torch.autograd.grad(clipped.sum(), x)
    assert gradient.isfinite().all()


@CURVATURES
def test_tangent_space_variant_cancels_to_lora_and_the_lorentz_transformation_does_not(
    curvature: float,
) -> None:
    k = scalar(curvature)
    x = vector_at(1.5, curvature, seed=3)
    generator = torch.Generator().manual_seed(4)
    a = torch.randn(2, 6, dtype=torch.float64, generator=generator)
    b = torch.randn(5, 2, dtype=torch.float64, generator=generator)
    lora = low_rank_transform(x, a, b)
    through_tangent_space = logmap0(expmap0(lora, k), k)
    hyplora = low_rank_update(x, a, b, k, norm_scale=1.0, radius_cap=10.0)
    torch.testing.assert_close(through_tangent_space, lora)
    assert (hyplora - lora).norm() > 0.1 * lora.norm()

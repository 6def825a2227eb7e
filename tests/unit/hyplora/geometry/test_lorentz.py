from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hyplora.errors import GeometryError
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
from tests.unit.hyplora.geometry.points import (
    CURVATURES,
    PROPERTY,
    ambient,
    curvatures,
    point_at,
    scalar,
    seeds,
    vector_at,
)

radii = st.floats(0, 20)
near_radii = st.floats(0, 8)  # where points keep enough digits for distances between them


@PROPERTY
@given(radius=st.floats(0, 700), curvature=curvatures, seed=seeds)
def test_logarithmic_map_undoes_the_exponential_map(
    radius: float, curvature: float, seed: int
) -> None:
    tangent = vector_at(radius, curvature, seed)
    back = logmap0(expmap0(tangent, scalar(curvature)), scalar(curvature))
    torch.testing.assert_close(back, tangent, rtol=1e-12, atol=1e-12)


@PROPERTY
@given(radius=radii, curvature=curvatures, seed=seeds)
def test_exponential_map_is_the_textbook_curve_on_the_hyperboloid(
    radius: float, curvature: float, seed: int
) -> None:
    tangent, k = vector_at(radius, curvature, seed), scalar(curvature)
    p = ambient(expmap0(tangent, k), k)
    time_squared = p[:1].square()
    torch.testing.assert_close(p[:1], (k.sqrt() * scalar(radius).cosh()).unsqueeze(0))
    torch.testing.assert_close(inner(p, p) / time_squared, -k / time_squared, rtol=0, atol=1e-14)


@PROPERTY
@given(offset=st.floats(-1e3, 1e3), radius=radii, curvature=curvatures, seed=seeds)
def test_projection_puts_points_back_onto_the_hyperboloid(
    offset: float, radius: float, curvature: float, seed: int
) -> None:
    k = scalar(curvature)
    p = ambient(point_at(radius, curvature, seed), k)
    moved = p + offset * torch.eye(7, dtype=torch.float64)[0]
    projected = project(moved, k)
    assert torch.equal(projected, p)
    assert torch.equal(project(projected, k), projected)
    time_squared = projected[:1].square()
    error = inner(projected, projected) + k
    torch.testing.assert_close(error / time_squared, torch.zeros_like(error), rtol=0, atol=1e-14)


@CURVATURES
def test_inner_product_with_the_origin_reads_the_time_component(curvature: float) -> None:
    k = scalar(curvature)
    origin = ambient(torch.zeros(6, dtype=torch.float64), k)
    p = ambient(point_at(2.0, curvature, seed=0), k)
    torch.testing.assert_close(inner(origin, p), -k.sqrt() * p[:1])
    torch.testing.assert_close(inner(origin, origin), -k.unsqueeze(0))


@PROPERTY
@given(radius=st.floats(0.1, 15), curvature=curvatures, seed=seeds)
def test_distance_from_the_origin_is_the_length_of_the_tangent_vector(
    radius: float, curvature: float, seed: int
) -> None:
    k = scalar(curvature)
    space = point_at(radius, curvature, seed)
    arcosh_form = k.sqrt() * torch.acosh(time_component(space, k) / k.sqrt())
    torch.testing.assert_close(distance0(space, k), (radius * k.sqrt()).unsqueeze(0))
    torch.testing.assert_close(distance0(space, k), arcosh_form, rtol=1e-6, atol=0)


@PROPERTY
@given(radius=st.floats(0, 700), curvature=curvatures, seed=seeds)
def test_distance_to_the_origin_is_distance0(radius: float, curvature: float, seed: int) -> None:
    k = scalar(curvature)
    x = point_at(radius, curvature, seed)
    for between in (distance(x, torch.zeros_like(x), k), distance(torch.zeros_like(x), x, k)):
        torch.testing.assert_close(between, distance0(x, k), rtol=1e-13, atol=1e-150)


@PROPERTY
@given(radius=st.floats(0, 700), curvature=curvatures, seed=seeds)
def test_distance_between_equal_points_is_exactly_zero(
    radius: float, curvature: float, seed: int
) -> None:
    x = point_at(radius, curvature, seed)
    assert distance(x, x.clone(), scalar(curvature)).item() == 0.0


@PROPERTY
@given(radius_x=near_radii, radius_y=near_radii, curvature=curvatures, seed=seeds)
def test_distance_is_symmetric_and_the_arcosh_of_the_inner_product(
    radius_x: float, radius_y: float, curvature: float, seed: int
) -> None:
    k = scalar(curvature)
    x, y = point_at(radius_x, curvature, seed), point_at(radius_y, curvature, seed + 1)
    between = distance(x, y, k)
    torch.testing.assert_close(distance(y, x, k), between, rtol=1e-12, atol=1e-290)
    cosh = (between / k.sqrt()).cosh()
    expected = -inner(ambient(x, k), ambient(y, k)) / k
    scale = time_component(x, k) * time_component(y, k) / k  # what the inner product rounds to
    torch.testing.assert_close(cosh / scale, expected / scale, rtol=0, atol=1e-13)


@PROPERTY
@given(
    radii=st.tuples(near_radii, near_radii, near_radii),
    curvature=curvatures,
    seeds=st.tuples(seeds, seeds, seeds),
)
def test_detours_are_not_shorter(
    radii: tuple[float, ...], curvature: float, seeds: tuple[int, ...]
) -> None:
    k = scalar(curvature)
    x, y, z = (point_at(r, curvature, s) for r, s in zip(radii, seeds, strict=True))
    detour = distance(x, y, k) + distance(y, z, k)
    assert distance(x, z, k) <= detour + 1e-11 * k.sqrt()


@PROPERTY
@given(
    radius=st.floats(0, 15),
    other_radius=st.floats(-15, 15),
    curvature=curvatures,
    seed=seeds,
)
def test_lines_through_the_origin_are_geodesics(
    radius: float, other_radius: float, curvature: float, seed: int
) -> None:
    k = scalar(curvature)
    x, y = point_at(radius, curvature, seed), point_at(other_radius, curvature, seed)
    # Rounding x and y turns and shifts them by eps * e^15.
    torch.testing.assert_close(
        (distance(x, y, k) / k.sqrt()).item(), abs(radius - other_radius), rtol=1e-12, atol=1e-9
    )


@PROPERTY
@given(radius=st.floats(0, 15), further=st.floats(1e-6, 5), curvature=curvatures)
def test_longer_tangent_vectors_reach_further_points(
    radius: float, further: float, curvature: float
) -> None:
    near = point_at(radius, curvature, seed=0).norm()
    far = point_at(radius + further, curvature, seed=0).norm()
    assert near < far


def test_curvature_to_infinity_is_flat() -> None:
    x, y, k = vector_at(1.0, 1.0, seed=2), vector_at(2.0, 1.0, seed=3), scalar(1e12)
    torch.testing.assert_close(expmap0(x, k), x)
    torch.testing.assert_close(logmap0(x, k), x)
    torch.testing.assert_close(distance0(x, k), x.norm().unsqueeze(0))
    torch.testing.assert_close(distance(x, y, k), (x - y).norm().unsqueeze(0))


def test_distances_of_all_pairs_come_from_broadcasting() -> None:
    x = torch.stack([point_at(1.0, 2.0, seed) for seed in range(3)])
    all_pairs = distance(x[:, None], x[None], scalar(2.0))
    assert all_pairs.shape == (3, 3, 1)
    torch.testing.assert_close(all_pairs[0, 2], distance(x[0], x[2], scalar(2.0)))


def test_only_vectors_outside_the_ball_are_clipped() -> None:
    x = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]], requires_grad=True)
    clipped = clip_to_ball(x, torch.tensor(1.0))
    torch.testing.assert_close(clipped, torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]))
    (gradient,) = torch.autograd.grad(clipped.sum(), x)
    assert gradient.isfinite().all()


@CURVATURES
@pytest.mark.parametrize("radius", [0.5, 1.5, 8.0])
def test_tangent_space_variant_cancels_to_lora_and_the_lorentz_transformation_does_not(
    radius: float, curvature: float
) -> None:
    k = scalar(curvature)
    x = vector_at(radius, curvature, seed=3)
    generator = torch.Generator().manual_seed(4)
    a = torch.randn(2, 6, dtype=torch.float64, generator=generator)
    b = torch.randn(5, 2, dtype=torch.float64, generator=generator)
    lora = low_rank_transform(x, a, b)
    tangent = logmap0(expmap0(x, k), k)
    through_tangent_space = logmap0(expmap0(low_rank_transform(tangent, a, b), k), k)
    hyplora = low_rank_update(x, a, b, k, norm_scale=1.0, radius_cap=10.0)
    torch.testing.assert_close(through_tangent_space, lora, rtol=1e-12, atol=0)
    assert (hyplora - lora).norm() > 0.01 * lora.norm()


MAPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "time_component": time_component,
    "project": project,
    "expmap0": expmap0,
    "logmap0": logmap0,
    "distance0": distance0,
    "distance": lambda x, k: distance(x, x.float(), k),
    "distance to": lambda x, k: distance(x.float(), x, k),
    "inner": lambda x, _: inner(x, x.float()),
    "inner with": lambda x, _: inner(x.float(), x),
    "clip_to_ball": clip_to_ball,
    "low_rank_transform": lambda x, _: low_rank_transform(x, x[None], x[:, None]),
    "low_rank_update": lambda x, k: low_rank_update(x, x[None], x[:, None], k, 1.0, 10.0),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("mapping", MAPS.values(), ids=MAPS.keys())
def test_half_precision_is_refused(
    mapping: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype
) -> None:
    with pytest.raises(GeometryError, match="float32 or float64"):
        mapping(torch.ones(3, dtype=dtype), torch.ones((), dtype=dtype))

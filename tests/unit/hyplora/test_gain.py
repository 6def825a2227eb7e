import math
from collections.abc import Callable
from typing import NamedTuple

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hyplora.errors import GeometryError
from hyplora.gain import (
    Euclidean,
    Lorentz,
    Projection,
    Stereographic,
    lorentz_gain,
    radial_gain,
    smallest_length,
)
from hyplora.geometry.lorentz import expmap0, logmap0, low_rank_update

CURVATURES = pytest.mark.parametrize("curvature", [1e-3, 0.5, 1.0, 10.0, 1e4])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
PROJECTIONS = pytest.mark.parametrize(
    "projection", [Lorentz(4.0), Lorentz(1.5), Stereographic(), Euclidean()], ids=str
)


class Layer(NamedTuple):
    """Random inputs and factors, all of which want gradients."""

    x: Tensor
    a: Tensor
    b: Tensor
    curvature: Tensor

    @classmethod
    def draw(cls, input_norm: float, curvature: float, b_scale: float = 1.0) -> "Layer":
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(3, 16, dtype=torch.float64, generator=generator)
        a = torch.randn(4, 16, dtype=torch.float64, generator=generator) / 4
        b = torch.randn(9, 4, dtype=torch.float64, generator=generator) / 2 * b_scale
        x = x / x.norm(dim=-1, keepdim=True) * input_norm
        tensors = (x, a, b, torch.tensor(curvature, dtype=torch.float64))
        return cls(*(tensor.requires_grad_() for tensor in tensors))


def closed_form(
    layer: Layer, projection: Projection, norm_scale: float = 4.0, curvature: float | None = None
) -> Tensor:
    """Scale LoRA's update by the gain."""
    x, a, b, k = layer
    update = x @ a.T @ b.T
    norms = (x.norm(dim=-1), update.norm(dim=-1))
    return update * radial_gain(projection, *norms, curvature or k, norm_scale)[:, None]


def gain_of(
    tau: float, mu: float, dtype: torch.dtype = torch.float64, radius_cap: float = 20.0
) -> Tensor:
    """Compute the Lorentz gain at lengths in units of the hyperboloid's radius."""
    lengths = (torch.tensor(length, dtype=dtype) for length in (tau, mu))
    return radial_gain(Lorentz(radius_cap), *lengths, 1.0, 1.0)


def gain_far_out(tau: float, mu: float, dtype: torch.dtype, radius_cap: float = math.inf) -> Tensor:
    lengths = (torch.tensor(length, dtype=dtype) for length in (tau, mu))
    return lorentz_gain(*lengths, 1.0, 1.0, radius_cap)


@CURVATURES
@pytest.mark.parametrize("input_norm", [1e-3, 1.0, 4.0, 10.0])
@pytest.mark.parametrize("radius_cap", [1.5, 20.0])
def test_closed_form_equals_the_maps(
    curvature: float, input_norm: float, radius_cap: float
) -> None:
    layer = Layer.draw(input_norm, curvature)
    expected = low_rank_update(*layer, norm_scale=4.0, radius_cap=radius_cap)
    update = closed_form(layer, Lorentz(radius_cap))
    torch.testing.assert_close(update, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("curvature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("input_norm", [0.1, 4.0, 40.0])
def test_stereographic_gain_equals_its_maps(curvature: float, input_norm: float) -> None:
    layer = Layer.draw(input_norm, curvature)
    x = layer.x / 4.0
    entered = 2 * x / (1 + curvature * x.square().sum(dim=-1, keepdim=True))
    v = entered @ layer.a.T @ layer.b.T
    t = (v.square().sum(dim=-1, keepdim=True) + curvature).sqrt()
    expected = 4.0 * v / (1 + math.sqrt(curvature) * t)
    torch.testing.assert_close(closed_form(layer, Stereographic()), expected)


def test_euclidean_projection_is_lora() -> None:
    layer = Layer.draw(4.0, 1.0)
    lora = layer.x @ layer.a.T @ layer.b.T
    assert torch.equal(closed_form(layer, Euclidean()), lora)


@CURVATURES
def test_transformation_of_the_tangent_space_would_cancel_to_lora(curvature: float) -> None:
    layer = Layer.draw(1.0, curvature)
    lora = layer.x @ layer.a.T @ layer.b.T
    there_and_back = logmap0(expmap0(lora, layer.curvature), layer.curvature)
    torch.testing.assert_close(there_and_back, lora)
    gap = (closed_form(layer, Lorentz(20.0)) - lora).norm() / lora.norm()
    assert gap > 1e-7 / curvature


@PROJECTIONS
@pytest.mark.parametrize("tau", [1e-3, 0.5, 1.4, 3.9, 5.0])
@pytest.mark.parametrize("mu", [1e-3, 0.5, 5.0])
@pytest.mark.parametrize("curvature", [0.3, 2.0])
def test_slopes_are_the_derivatives(
    projection: Projection, tau: float, mu: float, curvature: float
) -> None:
    lengths = [torch.tensor([v], dtype=torch.float64) for v in (tau**2, mu, math.log(curvature))]
    tau_sq, mu_, log_k = (length.requires_grad_() for length in lengths)
    c = projection.way_in(tau_sq.sqrt(), log_k.exp())
    gain = projection.gain(c, mu_, log_k.exp())
    by_tau_sq, by_mu, by_log_k = (
        torch.autograd.grad(gain, (tau_sq, mu_, log_k), allow_unused=True, materialize_grads=True)
        if gain.requires_grad
        else (torch.zeros(1, dtype=torch.float64),) * 3
    )
    plain = torch.tensor([tau], dtype=torch.float64)
    c, mu_ = c.detach(), mu_.detach()
    chi = projection.way_back_slope(c * mu_, curvature)
    slope = projection.way_in_slope(plain, c, curvature)
    torch.testing.assert_close(chi * slope / 2, by_tau_sq, rtol=1e-7, atol=1e-10)
    torch.testing.assert_close((c * chi - gain.detach()) / mu_, by_mu, rtol=1e-6, atol=1e-9)
    by_curvature = projection.curvature_slope(plain, c, mu_, curvature)
    torch.testing.assert_close(by_curvature, by_log_k, rtol=1e-7, atol=1e-10)


@PROJECTIONS
@pytest.mark.parametrize("tau", [1e-3, 1.0, 7.0])
def test_single_numbers_have_the_gain_of_tensors(projection: Projection, tau: float) -> None:
    c, mu = projection.way_in(tau, 0.7), 0.4
    as_tensors = projection.gain(
        projection.way_in(torch.tensor([tau], dtype=torch.float64), 0.7),
        torch.tensor([mu], dtype=torch.float64),
        0.7,
    )
    assert projection.gain(c, mu, 0.7) == pytest.approx(as_tensors.item(), rel=1e-14)


def test_curvature_to_infinity_is_lora() -> None:
    layer = Layer.draw(4.0, 1e10)
    torch.testing.assert_close(closed_form(layer, Lorentz(4.0)), layer.x @ layer.a.T @ layer.b.T)
    gain = radial_gain(Lorentz(4.0), torch.tensor([60.0]), torch.tensor([30.0]), 1e30, 24.0)
    torch.testing.assert_close(gain, torch.ones(1), rtol=1e-6, atol=0)


@DTYPES
@pytest.mark.parametrize("tau", [0.0, 1e-4, 1.0, 4.0, 19.0])
@pytest.mark.parametrize("gain_form", [gain_of, gain_far_out])
def test_gain_at_the_base_model_is_sinh_tau_over_tau(
    gain_form: Callable[..., Tensor], tau: float, dtype: torch.dtype
) -> None:
    expected = math.sinh(tau) / tau if tau else 1.0
    gain = gain_form(tau, 0.0, dtype).item()
    assert gain == pytest.approx(expected, rel=60 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("tau", [50.0, 1e3, 1e6])
@pytest.mark.parametrize("ratio", [1e-6, 0.1, 1.0, 100.0])
def test_far_out_the_gain_is_that_of_the_logarithm(tau: float, ratio: float) -> None:
    # arsinh(c sinh(tau)) = tau + ln(c) as soon as c e^tau >> 1; sinh itself overflows from 89 on.
    expected = (tau + math.log(ratio)) / (ratio * tau)
    gain = gain_far_out(tau, ratio * tau, torch.float32)
    torch.testing.assert_close(gain.item(), expected, rtol=1e-6, atol=0)


@DTYPES
@pytest.mark.parametrize("tau", [1e-6, 0.4999, 0.5001, 1.0, 3.9, 12.0, 20.0])
@pytest.mark.parametrize("mu", [1e-9, 1e-3, 0.1, 0.25, 1.0, 50.0])
@pytest.mark.parametrize("gain_form", [gain_of, gain_far_out])
def test_gain_is_exact_to_the_last_digits(
    gain_form: Callable[..., Tensor], mu: float, tau: float, dtype: torch.dtype
) -> None:
    gain = gain_form(tau, mu, dtype).item()
    with mpmath.workdps(80):
        tau, mu = (mpmath.mpf(torch.tensor(value, dtype=dtype).item()) for value in (tau, mu))
        expected = float(mpmath.asinh(mu * mpmath.sinh(tau) / tau) / mu)
    assert gain == pytest.approx(expected, rel=60 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("mu", [0.0, 0.3, 2.0])
def test_beyond_the_cap_the_gain_falls_as_the_clipping_says(mu: float) -> None:
    at_cap = gain_of(4.0, mu, radius_cap=4.0)
    torch.testing.assert_close(at_cap, gain_of(4.0, mu))
    torch.testing.assert_close(gain_of(8.0, 2 * mu, radius_cap=4.0), at_cap / 2)


@given(
    tau=st.floats(0, 3),
    mu=st.floats(0, 10),
    more=st.floats(0.01, 2),
)
def test_gain_grows_with_the_input_and_falls_with_the_update(
    tau: float, mu: float, more: float
) -> None:
    assert gain_of(tau + more, mu) > gain_of(tau, mu)
    assert gain_of(tau, mu + more) < gain_of(tau, mu)
    # The length of the update, which is mu times the gain, still grows with mu.
    assert (mu + more) * gain_of(tau, mu + more) > mu * gain_of(tau, mu)


@PROJECTIONS
@given(
    x_norm=st.floats(0, 1e4),
    update_norm=st.floats(0, 1e6),
    curvature=st.floats(1e-3, 1e4),
    norm_scale=st.sampled_from([1.0, 24.0, 64.0]),
)
def test_gain_and_slopes_are_finite_in_float32(
    projection: Projection,
    x_norm: float,
    update_norm: float,
    curvature: float,
    norm_scale: float,
) -> None:
    unit = projection.unit(curvature, norm_scale)
    smallest = smallest_length(torch.float32)
    tau = torch.tensor([x_norm / unit]).clamp(min=smallest)
    c = projection.way_in(tau, curvature)
    mu = torch.maximum(torch.tensor([update_norm / unit]), smallest / c)
    gain = projection.gain(c, mu, curvature)
    slopes = [
        projection.way_in_slope(tau, c, curvature),
        projection.way_back_slope(c * mu, curvature),
        projection.curvature_slope(tau, c, mu, curvature),
    ]
    assert gain.isfinite().all()
    assert (gain > 0).all()
    assert all(slope.isfinite().all() for slope in slopes)


def test_half_precision_is_refused() -> None:
    half = torch.ones(1).half()
    with pytest.raises(GeometryError, match="float32 or float64"):
        radial_gain(Lorentz(4.0), half, half, 1.0, 1.0)
    with pytest.raises(GeometryError, match="float32 or float64"):
        lorentz_gain(half, half, 1.0, 1.0)

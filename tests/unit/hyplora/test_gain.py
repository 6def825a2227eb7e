import math
from typing import NamedTuple

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hyplora.errors import GeometryError
from hyplora.gain import lorentz_gain
from hyplora.geometry.lorentz import low_rank_update

CURVATURES = pytest.mark.parametrize("curvature", [1e-3, 0.5, 1.0, 10.0, 1e4])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


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


def closed_form(layer: Layer, norm_scale: float = 4.0, radius_cap: float = math.inf) -> Tensor:
    """Compute the update as the adapter does: the gain on A's output, by B's Gram matrix."""
    x, a, b, curvature = layer
    h = x @ a.T
    update_norm_sq = ((h @ (b.T @ b)) * h).sum(dim=-1)
    gain = lorentz_gain(x.norm(dim=-1), update_norm_sq, curvature, norm_scale, radius_cap)
    return (h * gain.unsqueeze(-1)) @ b.T


def step_by_step(layer: Layer, norm_scale: float = 4.0, radius_cap: float = 300.0) -> Tensor:
    x, a, b, curvature = layer
    return low_rank_update(x, a, b, curvature, norm_scale, radius_cap)


def gain_of(
    tau: float, mu: float, dtype: torch.dtype = torch.float64, radius_cap: float = math.inf
) -> Tensor:
    """Compute the gain at radii measured in units of the hyperboloid's own radius."""
    return lorentz_gain(
        torch.tensor(tau, dtype=dtype), torch.tensor(mu, dtype=dtype) ** 2, 1.0, 1.0, radius_cap
    )


@CURVATURES
@pytest.mark.parametrize("input_norm", [1e-3, 1.0, 4.0, 10.0])
@pytest.mark.parametrize("radius_cap", [1.5, 300.0])
def test_closed_form_equals_the_maps_in_values_and_gradients(
    curvature: float, input_norm: float, radius_cap: float
) -> None:
    layer = Layer.draw(input_norm, curvature)
    expected = step_by_step(layer, radius_cap=radius_cap)
    update = closed_form(layer, radius_cap=radius_cap)
    weights = torch.randn_like(update)
    torch.testing.assert_close(update, expected, rtol=1e-12, atol=1e-15)
    gradients = torch.autograd.grad((update * weights).sum(), layer)
    expected_gradients = torch.autograd.grad((expected * weights).sum(), layer)
    for tensor, gradient, expected_gradient in zip(
        layer, gradients, expected_gradients, strict=True
    ):
        scale = ((update * weights).norm() / tensor.norm()).item()  # what LoRA's would be like
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-12 * scale)


@pytest.mark.parametrize("radius_cap", [1.5, math.inf])
@pytest.mark.parametrize("input_norm", [0.2, 4.0, 40.0])
@pytest.mark.parametrize("b_scale", [0.0, 1e-3, 1.0])
def test_gradients_agree_with_finite_differences(
    input_norm: float, b_scale: float, radius_cap: float
) -> None:
    x, a, b, curvature = Layer.draw(input_norm, 1.0, b_scale)

    def update(x: Tensor, a: Tensor, b: Tensor, curvature: Tensor) -> Tensor:
        return closed_form(Layer(x, a, b, curvature), radius_cap=radius_cap)

    assert torch.autograd.gradcheck(update, (x, a, b, curvature), rtol=1e-4, atol=1e-6)


def test_curvature_to_infinity_is_lora() -> None:
    layer = Layer.draw(4.0, 1e10)
    torch.testing.assert_close(closed_form(layer), layer.x @ layer.a.T @ layer.b.T)
    gain = lorentz_gain(torch.tensor([60.0]), torch.tensor([900.0]), 1e30, 24.0)
    torch.testing.assert_close(gain, torch.ones(1), rtol=1e-6, atol=0)


@DTYPES
@pytest.mark.parametrize("tau", [0.0, 1e-4, 1.0, 4.0, 40.0])
def test_gain_at_the_base_model_is_sinh_tau_over_tau(tau: float, dtype: torch.dtype) -> None:
    expected = math.sinh(tau) / tau if tau else 1.0
    for radius_cap in (20.0, math.inf):
        if tau <= radius_cap:
            gain = gain_of(tau, 0.0, dtype, radius_cap).item()
            assert gain == pytest.approx(expected, rel=60 * torch.finfo(dtype).eps)


@DTYPES
def test_update_of_a_zero_input_is_zero_with_finite_gradients(dtype: torch.dtype) -> None:
    layer = Layer(*(t.detach().to(dtype).requires_grad_() for t in Layer.draw(0.0, 1.0)))
    layer.x.data.zero_()
    update = closed_form(layer)
    assert torch.equal(update, torch.zeros_like(update))
    assert all(g.isfinite().all() for g in torch.autograd.grad(update.sum(), layer))


@pytest.mark.parametrize("tau", [50.0, 1e3, 1e6])
@pytest.mark.parametrize("ratio", [1e-6, 0.1, 1.0, 100.0])
def test_far_out_the_gain_is_that_of_the_logarithm(tau: float, ratio: float) -> None:
    # arsinh(c sinh(tau)) = tau + ln(c) as soon as c e^tau >> 1; sinh itself overflows from 89 on.
    expected = (tau + math.log(ratio)) / (ratio * tau)
    gain = gain_of(tau, ratio * tau, torch.float32)
    torch.testing.assert_close(gain.item(), expected, rtol=1e-6, atol=0)


@DTYPES
@pytest.mark.parametrize("tau", [1e-6, 0.4999, 0.5001, 1.0, 3.9, 12.0, 20.0])
@pytest.mark.parametrize("mu", [1e-9, 1e-3, 0.1, 0.25, 1.0, 50.0])
@pytest.mark.parametrize("radius_cap", [20.0, math.inf])
def test_gain_is_exact_to_the_last_digits(
    radius_cap: float, mu: float, tau: float, dtype: torch.dtype
) -> None:
    gain = gain_of(tau, mu, dtype, radius_cap).item()
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


@given(
    x_norm=st.floats(0, 1e4),
    update_norm=st.floats(0, 1e6),
    curvature=st.floats(1e-3, 1e4),
    norm_scale=st.sampled_from([1.0, 24.0, 64.0]),
    radius_cap=st.sampled_from([0.5, 4.0, 20.0]),
)
def test_values_and_gradients_are_finite_in_float32(
    x_norm: float, update_norm: float, curvature: float, norm_scale: float, radius_cap: float
) -> None:
    norms = torch.tensor([x_norm, update_norm**2], requires_grad=True)
    k = torch.tensor([curvature], requires_grad=True)
    gain = lorentz_gain(norms[0], norms[1], k, norm_scale, radius_cap)
    gradients = torch.autograd.grad(gain.sum(), (norms, k))
    assert gain.isfinite().all()
    assert (gain > 0).all()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_rounding_errors_below_zero_count_as_zero() -> None:
    x_norm = torch.tensor(2.0)
    negative = lorentz_gain(x_norm, torch.tensor(-1e-9), 1.0, 1.0)
    assert negative == lorentz_gain(x_norm, torch.tensor(0.0), 1.0, 1.0)


def test_half_precision_is_refused() -> None:
    with pytest.raises(GeometryError, match="float32 or float64"):
        lorentz_gain(torch.ones(1).half(), torch.ones(1).half(), 1.0, 1.0)

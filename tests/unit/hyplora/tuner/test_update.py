import math

import pytest
import torch
from torch import Tensor, nn

from tests.unit.hyplora.tuner.one_layer import (
    D_IN,
    D_OUT,
    config_with,
    inputs,
    layer_with,
    step_by_step,
    update_of,
)


@pytest.mark.parametrize("norm", [0.1, 5.0, 60.0])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"curvature": 0.5, "learn_curvature": True},
        {"norm_scale": 2.0, "radius_cap": 12.0},
        {"use_rslora": True},
        {"norm_scale": 2.0, "learn_norm_scale": True},
    ],
    ids=str,
)
def test_layer_adds_what_the_maps_say(settings: dict[str, float], norm: float) -> None:
    config = config_with(**settings)
    layer = layer_with(config)
    x = inputs(norm)
    update = layer(x) - layer.base_layer(x)
    torch.testing.assert_close(update, step_by_step(layer, x, config), rtol=1e-9, atol=1e-12)


def test_float32_layer_is_within_a_few_roundings_of_the_maps() -> None:
    config = config_with(radius_cap=12.0)
    layer = layer_with(config, dtype=torch.float32)
    x = inputs(20.0, torch.float32)
    update = update_of(layer, x).double()
    expected = step_by_step(layer, x, config)
    assert (update - expected).norm() < 5e-7 * expected.norm()


def test_curvature_to_infinity_is_lora() -> None:
    config = config_with(curvature=1e12)
    layer = layer_with(config)
    x = inputs()
    lora = config.scaling * (x @ layer.hyplora_A["default"].T @ layer.hyplora_B["default"].T)
    torch.testing.assert_close(update_of(layer, x), lora)


def test_new_adapter_changes_nothing_and_has_the_gradient_of_b_that_the_gain_says() -> None:
    config = config_with(init_weights=True, radius_cap=20.0)
    layer = layer_with(config)
    tau = 3.0
    x = inputs(tau * math.sqrt(D_IN))
    output = layer(x)
    assert torch.equal(output, layer.base_layer(x))
    b = layer.hyplora_B["default"]
    (gradient,) = torch.autograd.grad(output.sum(), b)
    h = x @ layer.hyplora_A["default"].T
    lora_gradient = config.scaling * h.sum(dim=(0, 1)).expand_as(b)
    torch.testing.assert_close(gradient, math.sinh(tau) / tau * lora_gradient)


@pytest.mark.parametrize("projection", ["lorentz", "stereographic"])
@pytest.mark.parametrize("rescale_output", [True, False])
@pytest.mark.parametrize("norm", [0.3, 5.0, 40.0])  # the last one beyond the cap
def test_gradients_agree_with_finite_differences(
    norm: float, rescale_output: bool, projection: str
) -> None:
    config = config_with(
        learn_curvature=True,
        learn_norm_scale=True,
        projection=projection,
        rescale_output=rescale_output,
        curvature=0.7,
    )
    layer = layer_with(config)
    x = inputs(norm)[:, :2].clone().requires_grad_()
    parameters = [p for p in layer.parameters() if p.requires_grad]
    assert len(parameters) == 4
    assert torch.autograd.gradcheck(lambda *_: layer(x), (x, *parameters))


@pytest.mark.parametrize("norm", [1e-9, 1.0, 60.0])
@pytest.mark.parametrize("b_scale", [0.0, 1e-12, 1.0])
def test_gradients_are_those_of_the_maps_at_the_origin_and_far_out(
    b_scale: float, norm: float
) -> None:
    config = config_with(radius_cap=20.0)
    layer = layer_with(config)
    b = layer.hyplora_B["default"]
    b.data *= b_scale
    x = inputs(norm).requires_grad_()
    weights = inputs()[..., :D_OUT]
    wanted = (x, layer.hyplora_A["default"], b)
    gradients = torch.autograd.grad((update_of(layer, x) * weights).sum(), wanted)
    expected = torch.autograd.grad((step_by_step(layer, x, config) * weights).sum(), wanted)
    for gradient, expected_gradient in zip(gradients, expected, strict=True):
        scale = expected_gradient.norm().item()
        torch.testing.assert_close(
            gradient, expected_gradient, rtol=1e-6, atol=max(1e-7 * scale, 1e-20)
        )


def test_update_that_cancels_to_nothing_has_gradients_of_the_size_of_loras() -> None:
    layer = layer_with(config_with(), dtype=torch.float32)
    a, b = layer.hyplora_A["default"], layer.hyplora_B["default"]
    a.data[1] = a.data[0]
    b.data[:, 1] = -b.data[:, 0]
    b.data[:, 2:] = 0
    x = inputs(dtype=torch.float32).requires_grad_()
    (gradient,) = torch.autograd.grad(update_of(layer, x).sum(), b)
    lora = layer.hyplora_settings["default"].scale.scaling * (x @ a.T).sum(dim=(0, 1)).expand_as(b)
    assert (gradient.norm() / lora.norm()).item() == pytest.approx(1.2, abs=0.3)


def test_second_derivatives_are_refused() -> None:
    layer = layer_with(config_with())
    x = inputs().requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("norm", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("curvature", [1e-3, 1.0, 1e4])
def test_half_precision_inputs_give_finite_outputs_and_gradients(
    dtype: torch.dtype, norm: float, curvature: float
) -> None:
    layer = layer_with(config_with(curvature=curvature, learn_curvature=True), dtype=dtype)
    for parameters in (layer.hyplora_A, layer.hyplora_B):
        parameters["default"].data = parameters["default"].data.float()
    x = inputs(norm, dtype).requires_grad_()
    output = layer(x)
    output.float().square().mean().backward()
    assert output.dtype is dtype
    assert output.isfinite().all()
    adapter = [p for p in layer.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in [x, *adapter])


def test_gain_stays_in_float32_under_autocast() -> None:
    config = config_with()
    layer = layer_with(config, dtype=torch.float32)
    x = inputs(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        base = layer.base_layer(x)
        update = layer.add_update(torch.zeros_like(base), x, "default")
    assert update.dtype is torch.bfloat16
    expected = step_by_step(layer, x, config)
    assert (update.double() - expected).norm() < 1e-2 * expected.norm()


@pytest.mark.parametrize("is_answering", [True, False])
def test_what_a_hook_keeps_of_the_base_layer_is_not_overwritten(is_answering: bool) -> None:
    layer = layer_with(config_with(), nn.Linear(D_IN, D_OUT, bias=False)).train(not is_answering)
    x = inputs()
    kept = []
    layer.base_layer.register_forward_hook(lambda _, inputs, output: kept.append(output))
    with torch.set_grad_enabled(not is_answering):
        output = layer(x)
    torch.testing.assert_close(kept[0], x @ layer.base_layer.weight.T)
    assert not torch.equal(output, kept[0])


@pytest.mark.parametrize("has_bias", [True, False])
def test_update_in_place_has_the_gradients_of_one_that_is_not(has_bias: bool) -> None:
    layer = layer_with(config_with(learn_curvature=True), nn.Linear(D_IN, D_OUT, bias=has_bias))
    x = inputs()[:, :2].clone().requires_grad_()

    def double(x: Tensor) -> Tensor:
        return layer(2 * x)  # not a leaf, as inside a model

    assert torch.autograd.gradcheck(double, (x,))

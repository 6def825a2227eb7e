import math

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from tests.unit.hyplora.tuner.one_layer import (
    D_IN,
    D_OUT,
    config_with,
    inputs,
    layer_with,
    step_by_step,
)


def test_adapter_in_the_dtype_of_a_half_precision_base_works_without_upcasting() -> None:
    layer = layer_with(config_with(learn_curvature=True), dtype=torch.bfloat16)
    assert layer.hyplora_A["default"].dtype is torch.bfloat16
    output = layer(inputs(dtype=torch.bfloat16))
    assert output.dtype is torch.bfloat16


def test_learned_curvature_starts_at_the_asked_for_value_and_stays_positive() -> None:
    layer = layer_with(config_with(curvature=0.3, learn_curvature=True), dtype=torch.bfloat16)
    parameter = layer.hyplora_log_curvature["default"]
    assert parameter.shape == (1,)
    assert parameter.dtype is torch.float32
    curvature = layer.curvature("default")
    torch.testing.assert_close(curvature, torch.tensor([0.3]))
    parameter.data.fill_(-50.0)
    assert layer.curvature("default") > 0


def test_learned_curvature_stays_inside_its_bounds_and_finds_the_way_back() -> None:
    config = config_with(learn_curvature=True, curvature_bounds=(0.5, 2.0))
    layer = layer_with(config)
    parameter = layer.hyplora_log_curvature["default"]
    for outside, bound, inward in ((9.0, 2.0, 1.0), (-9.0, 0.5, -1.0)):
        parameter.data.fill_(outside)
        curvature = layer.curvature("default")
        assert curvature.item() == pytest.approx(bound)
        (leads_back,) = torch.autograd.grad(inward * curvature, parameter)
        (leads_out,) = torch.autograd.grad(-inward * layer.curvature("default"), parameter)
        assert leads_back == pytest.approx(inward * bound)
        assert leads_out == 0


def test_gradient_of_a_learned_curvature_is_bounded() -> None:
    config = config_with(learn_curvature=True, curvature_gradient_bound=0.01)
    layer = layer_with(config)
    (gradient,) = torch.autograd.grad(
        1e3 * layer.curvature("default"), layer.hyplora_log_curvature["default"]
    )
    assert gradient == pytest.approx(0.01)


def test_learned_norm_scale_starts_at_the_root_of_the_width() -> None:
    layer = layer_with(config_with(learn_norm_scale=True))
    assert layer.hyplora_log_norm_scale["default"].shape == (1,)
    assert layer.norm_scale("default").item() == pytest.approx(math.sqrt(D_IN))


def test_gaussian_start_is_the_base_model_with_a_normal_a() -> None:
    layer = layer_with(config_with(init_weights="gaussian", r=16))
    assert torch.equal(layer.hyplora_B["default"], torch.zeros(D_OUT, 16, dtype=torch.float64))
    assert layer.hyplora_A["default"].std().item() == pytest.approx(1 / 16, rel=0.15)


def test_fixed_curvature_is_no_parameter() -> None:
    layer = layer_with(config_with(curvature=0.3))
    assert layer.curvature("default") == 0.3
    assert {name for name, _ in layer.named_parameters()} == {
        "base_layer.weight",
        "base_layer.bias",
        "hyplora_A.default",
        "hyplora_B.default",
    }


def test_dropout_acts_on_the_input_while_training_only() -> None:
    layer = layer_with(config_with(dropout=0.5))
    x = inputs()
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_transformers_conv1d_is_adapted_like_a_linear_layer() -> None:
    config = config_with()
    layer = layer_with(config, Conv1D(D_OUT, D_IN))
    x = inputs()
    torch.testing.assert_close(layer(x) - layer.base_layer(x), step_by_step(layer, x, config))


# torch's own compiler makes the context that it then warns about.
@pytest.mark.filterwarnings("ignore:.*Function.* should not be instantiated:DeprecationWarning")
def test_compiled_layer_has_no_graph_break() -> None:
    layer = layer_with(config_with(learn_curvature=True), dtype=torch.float32)
    x = inputs(dtype=torch.float32)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))


def test_replacing_an_adapter_by_one_of_fixed_curvature_forgets_the_learned_one() -> None:
    layer = layer_with(config_with(learn_curvature=True))
    layer.update_layer("default", config_with(curvature=2.0))
    assert layer.curvature("default") == 2.0
    assert "default" not in layer.hyplora_log_curvature

import math

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hyplora import HypLoraConfig
from hyplora.geometry.lorentz import low_rank_update
from hyplora.tuner.layer import HypLoraLinear

D_IN, D_OUT = 24, 18


def layer_with(
    config: HypLoraConfig, base: nn.Module | None = None, dtype: torch.dtype = torch.float64
) -> HypLoraLinear:
    torch.manual_seed(0)
    base = base if base is not None else nn.Linear(D_IN, D_OUT)
    return HypLoraLinear(base.to(dtype).requires_grad_(False), "default", config)


def config_with(**settings: float | bool | None) -> HypLoraConfig:
    return HypLoraConfig(**{"r": 4, "alpha": 8.0, "init_weights": False, **settings})


def inputs(norm: float = math.sqrt(D_IN), dtype: torch.dtype = torch.float64) -> Tensor:
    x = torch.randn(2, 5, D_IN, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return (x / x.norm(dim=-1, keepdim=True) * norm).to(dtype)


def update_of(layer: HypLoraLinear, x: Tensor) -> Tensor:
    nothing = torch.zeros(*x.shape[:-1], D_OUT, dtype=x.dtype)
    return layer.add_update(nothing, x, "default")


def step_by_step(layer: HypLoraLinear, x: Tensor, config: HypLoraConfig) -> Tensor:
    return config.scaling * low_rank_update(
        x.double(),
        layer.hyplora_A["default"].double(),
        layer.hyplora_B["default"].double(),
        torch.tensor(config.curvature, dtype=torch.float64),
        config.norm_scale or math.sqrt(D_IN),
        config.radius_cap,
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


@pytest.mark.parametrize("projection", ["lorentz", "stereographic", "euclidean"])
@pytest.mark.parametrize("base_dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("num_tokens", [1, 2, 5])
def test_answering_is_the_same_map_as_training(
    num_tokens: int, base_dtype: torch.dtype, projection: str
) -> None:
    config = config_with(
        projection=projection, learn_curvature=projection != "euclidean", rescale_output=False
    )
    layer = layer_with(config, dtype=base_dtype)
    x = inputs(dtype=base_dtype)[0, :num_tokens]
    trained = layer(x)
    with torch.no_grad():
        answered = layer.eval()(x)
    assert answered.dtype is base_dtype
    tolerance = 8 * torch.finfo(base_dtype).eps
    torch.testing.assert_close(answered, trained.detach(), rtol=tolerance, atol=tolerance)


@torch.no_grad()
@pytest.mark.parametrize("parameter", ["hyplora_A", "hyplora_B", "hyplora_log_curvature"])
def test_answers_follow_a_change_of_any_parameter(parameter: str) -> None:
    layer = layer_with(config_with(learn_curvature=True)).eval()
    x = inputs()
    before = layer(x)
    getattr(layer, parameter)["default"].mul_(0.5).add_(0.1)
    changed = layer(x)
    assert not torch.equal(changed, before)
    layer.hyplora_folded.clear()
    assert torch.equal(layer(x), changed)


@torch.no_grad()
def test_answers_follow_new_parameters_and_hidden_changes_across_training() -> None:
    layer = layer_with(config_with()).eval()
    x = inputs()
    before = layer(x)
    layer.load_state_dict({k: v * 0.5 for k, v in layer.state_dict().items()}, assign=True)
    assigned = layer(x)
    assert not torch.equal(assigned, before)
    layer.hyplora_B["default"].data.mul_(0.5)  # shows in no version
    layer.train().eval()
    halved = layer(x)
    assert not torch.equal(halved, assigned)
    with torch.enable_grad():
        layer(x)
    layer.hyplora_B["default"].data.mul_(0.5)
    assert not torch.equal(layer(x), halved)


@torch.no_grad()
def test_norms_are_shared_by_layers_of_one_input_and_never_stale() -> None:
    first, second = (layer_with(config_with()).eval() for _ in range(2))
    x = inputs()
    assert torch.equal(first(x), second(x))
    x.mul_(3.0)
    changed = second(x)
    assert torch.equal(changed, first(x.clone()))
    assert not torch.equal(changed, first(x / 3))


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


def test_inference_mode_gives_the_same_answers() -> None:
    layer = layer_with(config_with()).eval()
    x = inputs()
    with torch.no_grad():
        expected = layer(x)
    with torch.inference_mode():
        answers = [layer(x.clone()), layer(x.clone())]
    for answer in answers:
        torch.testing.assert_close(answer, expected)


def test_single_tokens_get_the_same_update_as_whole_texts() -> None:
    layer = layer_with(config_with())
    x = inputs()
    together = update_of(layer, x)
    alone = torch.stack([update_of(layer, token) for token in x.flatten(0, 1)])
    torch.testing.assert_close(alone, together.flatten(0, 1), rtol=1e-9, atol=1e-12)


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

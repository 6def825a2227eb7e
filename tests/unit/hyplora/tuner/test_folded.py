import pytest
import torch

from tests.unit.hyplora.tuner.one_layer import (
    config_with,
    inputs,
    layer_with,
    update_of,
)


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

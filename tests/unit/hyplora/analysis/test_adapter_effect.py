"""What an adapter does in each layer: gains and displacements of the tokens that pass."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor

from hyplora import HypLoraConfig, layer_curvatures
from hyplora.analysis.adapter_effect import measure_adapter, spread
from hyplora.errors import AnalysisError
from hyplora.tuner.layer import HypLoraLinear
from tests.unit.hyplora.analysis.families import FAMILIES, make_tiny

PROMPTS = [[1, 5, 9, 12], [1, 40, 41]]
TARGETS = {"gemma3-with-vision": r".*language_model\..*\.(q_proj|down_proj)"}


def adapted(family: str = "llama", **settings: object) -> PeftModel:
    targets = TARGETS.get(family, ["q_proj", "down_proj"])
    options = {"init_weights": False, "curvature": 0.5} | settings
    config = HypLoraConfig(r=4, target_modules=targets, **options)
    return get_peft_model(make_tiny(family), config).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_adapted_layer_of_every_family_is_measured(family: str) -> None:
    model = adapted(family, learn_curvature=True)
    effect = measure_adapter(model, PROMPTS)
    curvatures = {layer.name: layer.geometry.curvature for layer in effect.layers}
    assert curvatures == layer_curvatures(model)
    assert len(curvatures) == 4
    assert effect.num_tokens == 7
    for layer in effect.layers:
        assert layer.geometry.num_tokens == 7
        assert layer.gain.mean == pytest.approx(layer.geometry.mean_gain, rel=1e-5)
        assert layer.gain.largest == pytest.approx(layer.geometry.max_gain, rel=1e-5)
        assert 0 < layer.displacement.p05 <= layer.displacement.median <= layer.displacement.p95


@pytest.mark.parametrize("projection", ["lorentz", "stereographic", "euclidean"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_displacement_is_what_the_layer_adds_over_what_it_had(
    projection: str, dtype: torch.dtype
) -> None:
    model = adapted(projection=projection).to(dtype)
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    layers = {n: m for n, m in model.named_modules() if isinstance(m, HypLoraLinear)}
    hooks = [
        layer.register_forward_hook(
            lambda _, inputs, output, name=name: seen.update({name: (inputs[0], output)})
        )
        for name, layer in layers.items()
    ]
    with torch.no_grad():
        model(input_ids=torch.tensor([PROMPTS[0]]))
        for hook in hooks:
            hook.remove()
        effect = measure_adapter(model, PROMPTS[:1])
        for each in effect.layers:
            x, output = seen[each.name]
            before = layers[each.name].get_base_layer()(x)
            share = (output - before).float().norm(dim=-1) / before.float().norm(dim=-1)
            tolerance = 1e-4 if dtype is torch.float32 else 3e-2
            assert each.displacement.mean == pytest.approx(float(share.mean()), rel=tolerance)


def test_measuring_leaves_no_hook_and_the_same_answers() -> None:
    model = adapted()
    tokens = torch.tensor([PROMPTS[0]])
    with torch.no_grad():
        before = model(input_ids=tokens).logits
        measure_adapter(model, PROMPTS)
        after = model(input_ids=tokens).logits
    assert torch.equal(before, after)
    layers = [m for m in model.modules() if isinstance(m, HypLoraLinear)]
    hooked = [*layers, *(layer.get_base_layer() for layer in layers)]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in hooked)


def test_an_untrained_adapter_moves_nothing() -> None:
    effect = measure_adapter(adapted(init_weights=True), PROMPTS)
    assert {layer.displacement.largest for layer in effect.layers} == {0.0}


def test_flat_space_has_gain_one() -> None:
    effect = measure_adapter(adapted(projection="euclidean"), PROMPTS)
    assert {(layer.gain.p05, layer.gain.largest) for layer in effect.layers} == {(1.0, 1.0)}


def test_quantiles_are_values_of_tokens() -> None:
    found = spread([torch.arange(60.0), torch.arange(60.0, 101.0)])
    assert (found.p05, found.p25, found.median, found.p75, found.p95) == (5, 25, 50, 75, 95)
    assert (found.mean, found.largest) == (50, 100)


@pytest.mark.parametrize("prompts", [PROMPTS, []])
def test_what_has_no_such_adapter_or_no_token_is_refused(prompts: list[list[int]]) -> None:
    lora = get_peft_model(make_tiny("llama"), LoraConfig(target_modules=["q_proj"])).eval()
    with pytest.raises(AnalysisError, match="no token passed"):
        measure_adapter(lora if prompts else adapted(), prompts)

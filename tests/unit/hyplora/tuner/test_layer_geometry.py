import math
from collections.abc import Callable

import pytest
import torch
from peft import get_peft_model
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from hyplora import HypLoraConfig, record_geometry
from hyplora.gain import Lorentz, radial_gain
from hyplora.tuner.layer import HypLoraLinear

MakeLlama = Callable[[], LlamaForCausalLM]
D_IN = 16


def layer_with(**settings: object) -> nn.Module:
    torch.manual_seed(0)
    config = HypLoraConfig(r=4, init_weights=False, target_modules=["0"], **settings)
    return get_peft_model(nn.Sequential(nn.Linear(D_IN, 12)), config)


def inputs(*radii: float) -> Tensor:
    """Make one token of each length, in units of sqrt(d_in)."""
    x = torch.randn(len(radii), D_IN, generator=torch.Generator().manual_seed(1))
    return x / x.norm(dim=-1, keepdim=True) * math.sqrt(D_IN) * torch.tensor(radii)[:, None]


def test_record_has_the_geometry_of_the_tokens_that_passed() -> None:
    model = layer_with(curvature=4.0, radius_cap=1.5)
    x = inputs(1.0, 2.0, 6.0)  # radii of 0.5, 1 and 3
    with record_geometry(model) as record:
        model(x[:1])
        model(x[1:])
    (geometry,) = record.read().values()
    (layer,) = (m for m in model.modules() if isinstance(m, HypLoraLinear))
    update = x @ layer.hyplora_A["default"].T @ layer.hyplora_B["default"].T
    gain = radial_gain(Lorentz(1.5), x.norm(dim=-1), update.norm(dim=-1), 4.0, 4.0)
    assert (geometry.curvature, geometry.norm_scale) == (4.0, 4.0)
    assert (geometry.num_tokens, geometry.num_capped) == (3, 1)
    assert geometry.cap_rate == pytest.approx(1 / 3)
    assert geometry.mean_radius == pytest.approx(1.5, rel=1e-6)
    assert geometry.mean_gain == pytest.approx(gain.mean().item(), rel=1e-6)
    assert geometry.max_gain == pytest.approx(gain.max().item(), rel=1e-6)


def test_record_reads_learned_scales() -> None:
    model = layer_with(curvature=0.5, learn_curvature=True, norm_scale=3.0, learn_norm_scale=True)
    with record_geometry(model) as record:
        model(inputs(1.0))
    (geometry,) = record.read().values()
    assert geometry.curvature == pytest.approx(0.5, rel=1e-6)
    assert geometry.norm_scale == pytest.approx(3.0, rel=1e-6)


def test_nothing_is_left_behind_after_the_context() -> None:
    model = layer_with()
    with record_geometry(model) as record:
        pass
    model(inputs(1.0))
    assert record.read() == {}
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_recording_changes_neither_output_nor_gradients(
    make_llama: MakeLlama, tokens: Tensor
) -> None:
    def gradients(*, recorded: bool) -> list[Tensor]:
        torch.manual_seed(0)
        model = get_peft_model(make_llama(), HypLoraConfig(r=4, init_weights=False)).train()
        if recorded:
            with record_geometry(model) as record:
                loss = model(input_ids=tokens, labels=tokens).loss
            assert len(record.read()) == 14
        else:
            loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    for recorded, plain in zip(gradients(recorded=True), gradients(recorded=False), strict=True):
        assert torch.equal(recorded, plain)

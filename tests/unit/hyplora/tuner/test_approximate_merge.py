from collections.abc import Callable

import pytest
import torch
from peft import get_peft_model
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from hyplora import ApproximateMerge, HypLoraConfig
from hyplora.errors import CalibrationError, NotMergeableError
from hyplora.tuner.layer import HypLoraLinear

MakeLlama = Callable[[], LlamaForCausalLM]


def adapted(model: nn.Module, **settings: object) -> nn.Module:
    torch.manual_seed(0)
    defaults = {"r": 4, "alpha": 8.0, "init_weights": False, "task_type": "CAUSAL_LM"}
    return get_peft_model(model, HypLoraConfig(**{**defaults, **settings})).eval()


@torch.no_grad()
def logits(model: nn.Module, tokens: Tensor) -> Tensor:
    return model(input_ids=tokens).logits


def merged(model: nn.Module, tokens: Tensor) -> ApproximateMerge:
    return model.approximate_merge([{"input_ids": row[None]} for row in tokens])


def test_flat_adapter_merges_without_error(make_llama: MakeLlama, tokens: Tensor) -> None:
    model = adapted(make_llama(), curvature=1e4)
    expected = logits(model, tokens)
    merge = merged(model, tokens)
    assert merge.relative_error < 1e-3
    torch.testing.assert_close(logits(merge.model, tokens), expected, rtol=1e-3, atol=1e-3)
    assert not any(isinstance(module, HypLoraLinear) for module in merge.model.modules())


def test_error_grows_with_the_bend_and_is_told_layer_by_layer(
    make_llama: MakeLlama, tokens: Tensor
) -> None:
    errors = [
        merged(adapted(make_llama(), curvature=curvature, radius_cap=20.0), tokens)
        for curvature in (100.0, 1.0, 0.1)
    ]
    flat, bent, very_bent = (merge.relative_error for merge in errors)
    assert 0 < flat < bent < very_bent < 1
    assert len(errors[0].relative_errors) == 14


def test_error_is_that_of_the_outputs_and_no_scale_does_better() -> None:
    torch.manual_seed(0)
    x = torch.randn(400, 16, dtype=torch.float64)
    x *= torch.linspace(0.1, 3, 400)[:, None]
    base = nn.Sequential(nn.Linear(16, 12, bias=False).double())
    weight = base[0].weight.detach().clone()
    config = HypLoraConfig(r=4, init_weights=False, target_modules=["0"], curvature=0.5)
    model = get_peft_model(base, config).eval()
    with torch.no_grad():
        update = model(x) - x @ weight.T
        (layer,) = (m for m in model.modules() if isinstance(m, HypLoraLinear))
        ba = layer.hyplora_B["default"] @ layer.hyplora_A["default"]
    merge = model.base_model.approximate_merge([{"input": x}])
    with torch.no_grad():
        left = merge.model(x) - x @ weight.T - update
    assert merge.relative_error == pytest.approx((left.norm() / update.norm()).item(), rel=1e-6)
    lora = x @ ba.T
    best_scale = (lora * update).sum() / lora.square().sum()
    assert left.norm() <= (best_scale * lora - update).norm()


def test_transposed_base_weights_are_merged_as_well() -> None:
    torch.manual_seed(0)
    base = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=61))
    model = adapted(base, target_modules=["c_attn", "c_fc"], curvature=1e4)
    tokens = torch.arange(3, 40).unsqueeze(0)
    expected = logits(model, tokens)
    torch.testing.assert_close(
        logits(merged(model, tokens).model, tokens), expected, rtol=1e-3, atol=1e-3
    )


def test_tokens_that_the_mask_leaves_out_do_not_count(
    make_llama: MakeLlama, tokens: Tensor
) -> None:
    plain = merged(adapted(make_llama(), curvature=0.5), tokens[:1])
    padded = torch.nn.functional.pad(tokens[:1], (0, 6), value=5)
    mask = (torch.arange(padded.shape[1]) < tokens.shape[1]).long()[None]
    batch = {"input_ids": padded, "attention_mask": mask}
    masked = adapted(make_llama(), curvature=0.5).approximate_merge([batch])
    assert masked.relative_error == pytest.approx(plain.relative_error, rel=1e-4)


def test_new_adapter_has_nothing_to_merge_and_no_error(
    make_llama: MakeLlama, tokens: Tensor
) -> None:
    merge = merged(adapted(make_llama(), init_weights=True), tokens)
    assert merge.relative_error == 0
    assert torch.equal(logits(merge.model, tokens), logits(make_llama(), tokens))


def test_calibration_data_without_tokens_are_refused(make_llama: MakeLlama) -> None:
    model = adapted(make_llama())
    with pytest.raises(CalibrationError, match="calibration_data brought no token to"):
        model.approximate_merge([])


def test_several_active_adapters_are_refused_until_one_is_named(
    make_llama: MakeLlama, tokens: Tensor
) -> None:
    model = adapted(make_llama())
    model.add_adapter("second", HypLoraConfig(init_weights=False))
    model.base_model.set_adapter(["default", "second"])
    with pytest.raises(NotMergeableError, match="default, second are active: name the one"):
        merged(model, tokens)
    expected = model.approximate_merge([{"input_ids": tokens}], adapter_name="second")
    assert expected.relative_error > 0


def test_base_weights_that_are_not_plain_are_refused(make_llama: MakeLlama, tokens: Tensor) -> None:
    model = adapted(make_llama(), target_modules=["q_proj"])
    layer = next(m for m in model.modules() if isinstance(m, HypLoraLinear))
    layer.base_layer = nn.Sequential(layer.base_layer)
    layer.base_layer.weight = nn.Parameter(torch.ones(2, dtype=torch.int8), requires_grad=False)
    with pytest.raises(NotMergeableError, match="load the base model unquantized"):
        merged(model, tokens)

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from hyplora import HypLoraConfig, hotswap_adapter, layer_curvatures
from hyplora.errors import ConfigError

MakeLlama = Callable[[], LlamaForCausalLM]


def adapted(model: nn.Module, seed: int = 0, **settings: object) -> PeftModel:
    torch.manual_seed(seed)
    defaults = {"r": 4, "alpha": 8.0, "init_weights": False, "task_type": "CAUSAL_LM"}
    return get_peft_model(model, HypLoraConfig(**{**defaults, **settings})).eval()


@torch.no_grad()
def logits(model: nn.Module, tokens: Tensor) -> Tensor:
    return model.eval()(input_ids=tokens).logits


@pytest.mark.parametrize(
    "settings",
    [
        {"curvature": 0.3, "alpha": 20.0},
        {"r": 2},
        {"r": 6, "use_rslora": True, "norm_scale": 2.0},
        {"learn_curvature": True, "curvature": 0.2},
        {"learn_curvature": True, "share_curvature": True},
        {"projection": "stereographic", "rescale_output": False},
    ],
    ids=str,
)
def test_swapped_in_adapter_answers_as_if_freshly_loaded(
    settings: dict[str, object], make_llama: MakeLlama, tokens: Tensor, tmp_path: Path
) -> None:
    adapted(make_llama(), seed=1, **settings).save_pretrained(tmp_path)
    expected = PeftModel.from_pretrained(make_llama(), tmp_path)
    model = adapted(make_llama())
    logits(model, tokens)  # so that there is something to go stale
    hotswap_adapter(model, tmp_path)
    assert torch.equal(logits(model, tokens), logits(expected, tokens))
    assert layer_curvatures(model) == layer_curvatures(expected)
    assert model.peft_config["default"].to_dict() == {
        **expected.peft_config["default"].to_dict(),
        "inference_mode": False,
    }


def test_parameters_of_the_same_shape_are_written_in_place(
    make_llama: MakeLlama, tmp_path: Path
) -> None:
    adapted(make_llama(), seed=1, curvature=0.5).save_pretrained(tmp_path)
    model = adapted(make_llama())
    before = {name: p.data_ptr() for name, p in model.named_parameters()}
    hotswap_adapter(model, tmp_path)
    assert {name: p.data_ptr() for name, p in model.named_parameters()} == before


def test_adapter_of_other_layers_is_refused_and_changes_nothing(
    make_llama: MakeLlama, tokens: Tensor, tmp_path: Path
) -> None:
    adapted(make_llama(), target_modules=["q_proj"]).save_pretrained(tmp_path)
    model = adapted(make_llama(), target_modules=["q_proj", "v_proj"])
    expected = logits(model, tokens)
    with pytest.raises(ConfigError, match=r"adapt different layers, such as .*v_proj"):
        hotswap_adapter(model, tmp_path)
    assert torch.equal(logits(model, tokens), expected)


def test_adapter_of_another_method_is_refused(make_llama: MakeLlama, tmp_path: Path) -> None:
    get_peft_model(make_llama(), LoraConfig(r=4)).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="is not a HypLoRA adapter"):
        hotswap_adapter(adapted(make_llama()), tmp_path)


def test_whole_modules_are_not_swapped(make_llama: MakeLlama, tmp_path: Path) -> None:
    adapted(make_llama(), modules_to_save=["lm_head"]).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="brings whole modules or biases"):
        hotswap_adapter(adapted(make_llama()), tmp_path)

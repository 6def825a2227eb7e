"""HypLoRA on the model families of the paper: tiny ones that train, full ones that only count."""

import copy
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import (
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from hyplora import HypLoraConfig
from hyplora.tuner.layer import HypLoraLinear

TARGETS = ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj")
"""The layers that the paper adapts."""
TARGETS_OF_TEXT = rf".*\.language_model\..*\.({'|'.join(TARGETS)})"
"""The same in the language model alone: a vision tower has a q_proj, too."""
PAPER_RANK = 32


@dataclass(frozen=True)
class Shape:
    """The published numbers of a model."""

    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    layers: int
    head_dim: int | None = None
    """Where it is not hidden / heads."""
    vocabulary: int = 61

    def settings(self) -> dict[str, int]:
        head_dim = {} if self.head_dim is None else {"head_dim": self.head_dim}
        return {
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "num_hidden_layers": self.layers,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            **head_dim,
        }

    def num_adapter_parameters(self, rank: int) -> int:
        head_dim = self.head_dim or self.hidden // self.heads
        d_in_plus_d_out = {
            "q_proj": self.hidden + self.heads * head_dim,
            "k_proj": self.hidden + self.kv_heads * head_dim,
            "v_proj": self.hidden + self.kv_heads * head_dim,
            "up_proj": self.hidden + self.intermediate,
            "down_proj": self.intermediate + self.hidden,
        }
        return self.layers * rank * sum(d_in_plus_d_out[target] for target in TARGETS)


Family = tuple[type[PreTrainedModel], type[PretrainedConfig]]
LLAMA: Family = (LlamaForCausalLM, LlamaConfig)
GEMMA: Family = (GemmaForCausalLM, GemmaConfig)
GEMMA3: Family = (Gemma3ForCausalLM, Gemma3TextConfig)
GEMMA3_WITH_VISION: Family = (Gemma3ForConditionalGeneration, Gemma3TextConfig)
QWEN2: Family = (Qwen2ForCausalLM, Qwen2Config)

LLAMA_7B = Shape(4096, 11008, 32, 32, 32, vocabulary=32000)
LLAMA_13B = Shape(5120, 13824, 40, 40, 40, vocabulary=32000)
LLAMA3_8B = Shape(4096, 14336, 32, 8, 32, vocabulary=128256)
GEMMA3_4B = Shape(2560, 10240, 8, 4, 34, head_dim=256)


def make_model(family: Family, shape: Shape) -> PreTrainedModel:
    model_class, config_class = family
    config = config_class(**shape.settings())
    if model_class is Gemma3ForConditionalGeneration:
        vision = {
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_attention_heads": 2,
            "num_hidden_layers": 1,
            "image_size": 16,
            "patch_size": 8,
        }
        config = Gemma3Config(text_config=config, vision_config=vision, mm_tokens_per_image=4)
    return model_class(config).eval()


def make_tiny(family: Family) -> PreTrainedModel:
    head_dim = None if family in (LLAMA, QWEN2) else 16  # Gemma's differs from hidden / heads
    torch.manual_seed(0)
    return make_model(family, Shape(32, 48, 4, 2, 2, head_dim))


def config_for(family: Family, rank: int, **settings: object) -> HypLoraConfig:
    targets = TARGETS_OF_TEXT if family == GEMMA3_WITH_VISION else list(TARGETS)
    return HypLoraConfig(r=rank, target_modules=targets, task_type="CAUSAL_LM", **settings)


def inputs_for(model: nn.Module, tokens: Tensor) -> dict[str, Tensor]:
    is_multimodal = isinstance(model.config, Gemma3Config)
    text_only = {"token_type_ids": torch.zeros_like(tokens)} if is_multimodal else {}
    return {"input_ids": tokens, **text_only}


def logits(model: nn.Module, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        return model.eval()(**inputs_for(model, tokens)).logits


@pytest.mark.parametrize(
    "family", [LLAMA, GEMMA, GEMMA3, GEMMA3_WITH_VISION, QWEN2], ids=lambda f: f[0].__name__
)
def test_every_family_trains_its_adapter_alone_and_loads_it_again(
    family: Family, tokens: Tensor, tmp_path: Path
) -> None:
    config = config_for(family, rank=4, init_weights=False, learn_curvature=True)
    model = get_peft_model(make_tiny(family), config)
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    loss = model.train()(**inputs_for(model, tokens), labels=tokens).loss
    loss.backward()
    optimizer.step()
    assert loss.isfinite()
    moved = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert moved == {name for name in before if "hyplora_" in name}
    assert len(moved) == 3 * len(TARGETS) * 2  # A, B and K in each of two blocks
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(make_tiny(family), tmp_path)
    assert torch.equal(logits(loaded, tokens), logits(model, tokens))
    assert not torch.equal(logits(loaded, tokens), logits(loaded.unload(), tokens))


@pytest.mark.parametrize(
    ("family", "shape"),
    [
        pytest.param(LLAMA, LLAMA_7B, id="LLaMA-7B"),
        pytest.param(LLAMA, LLAMA_13B, id="LLaMA-13B"),
        pytest.param(LLAMA, LLAMA3_8B, id="LLaMA3-8B"),
        pytest.param(LLAMA, Shape(576, 1536, 9, 3, 30), id="SmolLM2-135M"),
        pytest.param(GEMMA, Shape(3072, 24576, 16, 16, 28, head_dim=256), id="Gemma-7B"),
        pytest.param(GEMMA3, GEMMA3_4B, id="Gemma3-4B-text"),
        pytest.param(GEMMA3_WITH_VISION, GEMMA3_4B, id="Gemma3-4B"),
        pytest.param(QWEN2, Shape(3584, 18944, 28, 4, 28), id="Qwen2.5-7B"),
    ],
)
def test_full_size_model_gets_r_times_d_in_plus_d_out_parameters_in_every_target_layer(
    family: Family, shape: Shape
) -> None:
    with torch.device("meta"):
        base = make_model(family, shape)
    model = get_peft_model(base, config_for(family, PAPER_RANK), low_cpu_mem_usage=True)
    adapted = [name for name, module in model.named_modules() if isinstance(module, HypLoraLinear)]
    assert len(adapted) == shape.layers * len(TARGETS)
    num_trainable, _ = model.get_nb_trainable_parameters()
    assert num_trainable == shape.num_adapter_parameters(PAPER_RANK)
    assert all(parameter.is_meta for parameter in model.parameters())  # no memory was taken


# Of the LoRA rows in table 1 of DoRA, Liu et al. 2024, arXiv:2402.09353.
@pytest.mark.parametrize(
    ("shape", "percent"), [(LLAMA_7B, 0.83), (LLAMA_13B, 0.67), (LLAMA3_8B, 0.70)]
)
def test_trainable_share_is_the_published_one_of_lora_at_rank_32(
    shape: Shape, percent: float
) -> None:
    with torch.device("meta"):
        base = make_model(LLAMA, shape)
    model = get_peft_model(base, config_for(LLAMA, PAPER_RANK), low_cpu_mem_usage=True)
    num_trainable, num_all = model.get_nb_trainable_parameters()
    assert round(100 * num_trainable / num_all, 2) == percent

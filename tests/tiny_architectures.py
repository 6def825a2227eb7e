"""Tiny random models of the architectures whose attention, caches or positions differ."""

from collections.abc import Callable

import torch
from torch import nn
from transformers import AutoModelForCausalLM as Auto
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

VOCABULARY = 61
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 1024,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**SIZES),
    "qwen2": lambda: Qwen2Config(**SIZES),
    "mistral with a window": lambda: MistralConfig(**SIZES, sliding_window=5),
    "gemma2 with a window and bounded scores": lambda: Gemma2Config(**SIZES, sliding_window=5),
    "gemma3 with a window": lambda: Gemma3TextConfig(**SIZES, sliding_window=5),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=4, eos_token_id=None
    ),
    "gpt-neox": lambda: GPTNeoXConfig(
        **{key: value for key, value in SIZES.items() if key != "head_dim"}
    ),
}
"""Those whose rows can be packed, and decoded together."""


def mamba() -> PreTrainedConfig:
    """One whose state runs on from row to row."""
    return MambaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=2,
        state_size=4,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )


def model_of(config: PreTrainedConfig) -> PreTrainedModel:
    """Make the same model each time; far from uniform attention and logits, so nothing ties."""
    torch.manual_seed(0)
    model = Auto.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.4)
    return model

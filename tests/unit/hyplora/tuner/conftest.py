from collections.abc import Callable

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 61


@pytest.fixture
def make_llama() -> Callable[[], LlamaForCausalLM]:
    """Make the same tiny random Llama each time."""

    def make() -> LlamaForCausalLM:
        config = LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            initializer_range=0.2,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return LlamaForCausalLM(config).eval()

    return make


@pytest.fixture
def tokens() -> torch.Tensor:
    """Make a batch of three rows of token ids."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(3, VOCABULARY, (3, 10), generator=generator)

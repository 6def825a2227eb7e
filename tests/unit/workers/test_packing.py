"""Rows packed into one sequence are answered, and learned from, as if each were alone."""

from collections.abc import Callable

import pytest
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

from workers.packing import ATTENTION_NAME, SHORT_ROW, positions_of, use_packed_attention

SIZES = {
    "vocab_size": 97,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 1024,
}
CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**SIZES),
    "qwen2": lambda: Qwen2Config(**SIZES),
    "mistral with a window": lambda: MistralConfig(**SIZES, sliding_window=5),
    "gemma2 with a window and bounded scores": lambda: Gemma2Config(**SIZES, sliding_window=5),
    "gemma3 with a window": lambda: Gemma3TextConfig(**SIZES, sliding_window=5),
    "gpt2": lambda: GPT2Config(vocab_size=97, n_embd=16, n_layer=2, n_head=4),
    "gpt-neox": lambda: GPTNeoXConfig(
        **{key: value for key, value in SIZES.items() if key != "head_dim"}
    ),
}


def model_of(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    model = Auto.from_config(config).eval()
    for parameter in model.parameters():  # far from uniform attention
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.4)
    return model


def rows_of(*lengths: int) -> list[torch.Tensor]:
    return [torch.randint(0, 97, (length,)) for length in lengths]


def alone(model: PreTrainedModel, rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([model(input_ids=row[None], use_cache=False).logits for row in rows], dim=1)


def packed(model: PreTrainedModel, rows: list[torch.Tensor]) -> torch.Tensor:
    lengths = [len(row) for row in rows]
    return model(
        input_ids=torch.cat(rows)[None],
        position_ids=positions_of(lengths),
        row_lengths=lengths,
        use_cache=False,
    ).logits


def gradients(model: PreTrainedModel, logits: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    logits.log_softmax(-1)[..., 3].sum().backward()
    return [
        parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None
    ]


@pytest.mark.parametrize("name", CONFIGS)
def test_packed_rows_have_the_answers_and_gradients_of_rows_alone(name: str) -> None:
    model = model_of(CONFIGS[name]())
    rows = rows_of(9, 3, 17, 1)
    expected = alone(model, rows)
    expected_gradients = gradients(model, expected)
    assert use_packed_attention(model)
    found = packed(model, rows)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    for one, other in zip(gradients(model, found), expected_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_long_rows_go_through_the_fused_kernel_with_the_same_answers() -> None:
    model = model_of(LlamaConfig(**SIZES))
    rows = rows_of(SHORT_ROW + 9, 5, SHORT_ROW + 40)
    expected = alone(model, rows)
    assert use_packed_attention(model)
    torch.testing.assert_close(packed(model, rows), expected, rtol=1e-3, atol=1e-3)


def test_what_one_row_says_changes_no_other() -> None:
    model = model_of(LlamaConfig(**SIZES))
    assert use_packed_attention(model)
    first, other, last = rows_of(8, 8, 8)
    before = packed(model, [first, other, last])
    after = packed(model, [first, (other + 1) % 97, last])
    assert torch.equal(before[:, :8], after[:, :8])
    assert torch.equal(before[:, 16:], after[:, 16:])
    assert not torch.equal(before[:, 8:16], after[:, 8:16])


def test_a_model_that_mixes_rows_in_its_own_way_keeps_its_own_way() -> None:
    model = model_of(MambaConfig(vocab_size=97, hidden_size=16, num_hidden_layers=2, state_size=4))
    before = model.config._attn_implementation
    assert not use_packed_attention(model)
    assert model.config._attn_implementation == before != ATTENTION_NAME

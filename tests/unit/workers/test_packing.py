"""Rows packed into one sequence are answered, and learned from, as if each were alone."""

import pytest
import torch
from transformers import LlamaConfig, PreTrainedModel

from tests.tiny_architectures import CONFIGS, SIZES, VOCABULARY, mamba, model_of
from workers.packing import ATTENTION_NAME, SHORT_ROW, positions_of, use_packed_attention


def rows_of(*lengths: int) -> list[torch.Tensor]:
    return [torch.randint(0, VOCABULARY, (length,)) for length in lengths]


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
    after = packed(model, [first, (other + 1) % VOCABULARY, last])
    assert torch.equal(before[:, :8], after[:, :8])
    assert torch.equal(before[:, 16:], after[:, 16:])
    assert not torch.equal(before[:, 8:16], after[:, 8:16])


def test_a_model_that_mixes_rows_in_its_own_way_keeps_its_own_way() -> None:
    model = model_of(mamba())
    before = model.config._attn_implementation
    assert not use_packed_attention(model)
    assert model.config._attn_implementation == before != ATTENTION_NAME

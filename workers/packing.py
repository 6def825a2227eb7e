"""Attention for rows that lie one behind the other in one sequence, each seeing itself alone.

Padding costs the time of real tokens in every linear layer, which is nearly all of a model's time.
So a forward pass gets its rows concatenated, and only attention takes them apart again: row by row,
which needs no block mask and can mix nothing between rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from transformers import AttentionInterface, PreTrainedModel

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

ATTENTION_NAME: Final = "hyplora_packed_rows"
"""Under which transformers finds this attention."""

SHORT_ROW: Final = 256
"""Up to this many tokens, plain matrix products beat torch's fused kernel on a CPU.

They save 10 to 15 % of a step: tests/benchmarks/cpu_attention.py.
"""


def use_packed_attention(model: PreTrainedModel) -> bool:
    """Give a model the attention of this module, if its answers stay what they were.

    Some architectures attend in ways of their own (sinks, state spaces), so the rows of a probe are
    answered together and one by one; a model whose answers differ keeps its own attention.

    Returns:
        Whether rows may be packed.
    """
    own = model.config._attn_implementation
    probe = torch.arange(7, device=model.device) % model.config.get_text_config().vocab_size
    rows = (probe[:4], probe[2:])
    with torch.no_grad():
        expected = [model(input_ids=row[None], use_cache=False).logits for row in rows]
        try:
            model.set_attn_implementation(ATTENTION_NAME)
            found = model(
                input_ids=torch.cat(rows)[None],
                position_ids=positions_of([len(row) for row in rows]).to(model.device),
                row_lengths=[len(row) for row in rows],
                use_cache=False,
            ).logits
        except (TypeError, ValueError, KeyError, RuntimeError):
            found = torch.full((), torch.nan)
    tolerance = 1e-3 if found.dtype is torch.float32 else 0.1
    wanted = torch.cat(expected, dim=1)
    if found.shape == wanted.shape and torch.allclose(found, wanted, tolerance, tolerance):
        return True
    model.set_attn_implementation(own)
    return False


def positions_of(lengths: Sequence[int]) -> Tensor:
    """Position of each token in its own row: shape [1, time]."""
    return torch.cat([torch.arange(length) for length in lengths])[None]


def branch_positions(trunk: int, branches: Sequence[int]) -> Tensor:
    """Position of each token of a row that ends in branches, each of which follows the trunk."""
    return torch.cat([torch.arange(trunk), *(trunk + torch.arange(length) for length in branches)])


@torch.compiler.disable  # the lengths differ from batch to batch, and would compile it anew
def attend_in_rows(
    module: nn.Module,
    query: Float[Tensor, "batch head time dim"],
    key: Float[Tensor, "batch kv_head time dim"],
    value: Float[Tensor, "batch kv_head time dim"],
    attention_mask: None,  # transformers makes none for this attention
    scaling: float | None = None,
    dropout: float = 0.0,
    row_lengths: Sequence[int] | None = None,
    row_branches: Sequence[Sequence[int]] | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: object,
) -> tuple[Float[Tensor, "batch time head dim"], None]:
    """Causal attention within each row; called by transformers' models.

    Args:
        module: The attention layer.
        query: Of all rows, one behind the other.
        key: Likewise.
        value: Likewise.
        attention_mask: Unused.
        scaling: Factor of the scores; by default dim^-0.5.
        dropout: Probability on the attention weights.
        row_lengths: Tokens of each row; by default each sequence of the batch is a row.
        row_branches: Tokens of each branch in which a row ends, such as the options of a question:
            each branch sees itself and what stands before the first; by default there are none.
        sliding_window: Number of newest tokens that are seen, where there is such a bound.
        softcap: Bound on the scores, where there is one.
    """
    groups = query.shape[1] // key.shape[1]
    lengths = list(row_lengths or [query.shape[2]])
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    branches = row_branches or [()] * len(lengths)
    answers = []
    for q, k, v, parts in zip(
        *(states.split(lengths, dim=2) for states in (query, key, value)), branches, strict=True
    ):
        length = q.shape[2]
        is_windowed = sliding_window is not None and length > sliding_window
        window = sliding_window if is_windowed else None
        mask = None
        if softcap is None and (length > SHORT_ROW or q.device.type != "cpu"):
            if is_windowed or parts:
                mask = _mask(length, tuple(parts), window, q.dtype, q.device)
            answer = F.scaled_dot_product_attention(
                q, k, v, mask, dropout, is_causal=mask is None, scale=scale, enable_gqa=groups > 1
            )
        else:
            mask = _mask(length, tuple(parts), window, q.dtype, q.device)
            k, v = (states.repeat_interleave(groups, dim=1) for states in (k, v))
            scores = q @ k.transpose(2, 3) * scale
            if softcap is not None:
                scores = softcap * torch.tanh(scores / softcap)
            weights = (scores + mask).softmax(dim=-1, dtype=torch.float32).to(q.dtype)
            answer = F.dropout(weights, dropout, module.training) @ v
        answers.append(answer)
    return torch.cat(answers, dim=2).transpose(1, 2), None


_short_masks: dict[tuple[int | None, torch.dtype, torch.device], torch.Tensor] = {}


def _mask(
    length: int,
    branches: tuple[int, ...],
    window: int | None,
    dtype: torch.dtype,
    device: torch.device,
) -> Float[Tensor, "time time"]:
    if branches:
        return _branch_mask(length, branches, window, dtype, device)
    return _causal_mask(length, window, dtype, device)


def _causal_mask(
    length: int, window: int | None, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "time time"]:
    """0 where a query sees a key, -inf where it does not."""
    if length > SHORT_ROW:
        return _make_causal_mask(length, window, dtype, device)
    key = (window, dtype, device)
    mask = _short_masks.get(key)
    if mask is None:
        mask = _make_causal_mask(SHORT_ROW, window, dtype, device)
        if type(mask) is torch.Tensor:  # and no fake, whose content nobody may read later
            _short_masks[key] = mask
    return mask[:length, :length]


@lru_cache(maxsize=256)  # every layer asks for those of one pass
def _branch_mask(
    length: int,
    branches: tuple[int, ...],
    window: int | None,
    dtype: torch.dtype,
    device: torch.device,
) -> Float[Tensor, "time time"]:
    """As a causal mask, where each of the branches at the end follows what precedes them all."""
    trunk = length - sum(branches)
    branch = torch.arange(len(branches) + 1).repeat_interleave(torch.tensor([trunk, *branches]))
    position = branch_positions(trunk, branches)
    is_reached = (branch == 0) | (branch[:, None] == branch)
    seen = is_reached & (position[:, None] >= position)
    if window is not None:
        seen &= position[:, None] - position < window
    return torch.zeros(length, length).masked_fill(~seen, -torch.inf).to(device, dtype)


def _make_causal_mask(
    length: int, window: int | None, dtype: torch.dtype, device: torch.device
) -> Tensor:
    seen = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    if window is not None:
        seen = seen.triu(1 - window)
    return torch.zeros(length, length, dtype=dtype, device=device).masked_fill(~seen, -torch.inf)


AttentionInterface.register(ATTENTION_NAME, attend_in_rows)

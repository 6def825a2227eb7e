"""How often each token of a vocabulary occurs in a data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hyplora.errors import AnalysisError

if TYPE_CHECKING:
    from jaxtyping import Int
    from transformers import PreTrainedTokenizerBase

_TEXTS_AT_ONCE = 512


def token_rows(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> Iterator[list[int]]:
    """Turn texts into token ids, without the special tokens that a tokenizer puts around them."""
    rest = iter(texts)
    while batch := list(islice(rest, _TEXTS_AT_ONCE)):
        yield from tokenizer(batch, add_special_tokens=False)["input_ids"]


def count_tokens(rows: Iterable[Sequence[int]], vocabulary_size: int) -> Int[Tensor, " vocabulary"]:
    """Count tokens by id.

    Args:
        rows: Token ids of each text.
        vocabulary_size: Ids are less than this; the number of rows of the embedding, which may be
            more than the tokenizer's.

    Raises:
        AnalysisError: If an id is not in the vocabulary.
    """
    counts = torch.zeros(vocabulary_size, dtype=torch.int64)
    for row in rows:
        ids = torch.tensor(row, dtype=torch.int64)
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < vocabulary_size:
            raise AnalysisError(
                f"token ids go from {int(ids.min())} to {int(ids.max())}, but the vocabulary has "
                f"{vocabulary_size} tokens; give the tokenizer of this model"
            )
        counts += torch.bincount(ids, minlength=vocabulary_size)
    return counts

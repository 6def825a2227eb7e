"""Embedding norms of words from the general to the specific, as in the paper's table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Final

from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class WordGroup:
    """Words of about the same generality."""

    name: str
    words: tuple[str, ...]


WORD_GROUPS: Final = (
    WordGroup("function words", ("the", "to", "of", "and", "in", "that", "is", "for")),
    WordGroup("words of questions", ("how", "much", "many", "time", "cost")),
    WordGroup("general nouns", ("animal", "fruit", "number", "color", "size")),
    WordGroup(
        "specific words",
        ("puppy", "rabbit", "lemon", "banana", "seventeen", "purple", "inch", "tractor"),
    ),
)
"""From general to specific; the second and third are those of Yang et al. 2024, arXiv:2410.04010,
the first and last are choices of this project."""


@dataclass(frozen=True)
class WordNorm:
    """A word that the vocabulary has as one token."""

    word: str
    token_id: int
    norm: float
    """Of its embedding (length)."""
    count: int
    """How often the token occurs in the data."""


@dataclass(frozen=True)
class WordGroupNorms:
    """The words of one group."""

    name: str
    words: tuple[WordNorm, ...]
    split_words: tuple[str, ...]
    """Words that are several tokens, whose norms say nothing of the word; left out."""
    mean_norm: float | None
    """Mean over the words (length); None if all are split."""
    sd_norm: float | None
    """Standard deviation over the words (length); None with fewer than two."""
    mean_count: float | None
    """Mean over the words."""


def word_group_norms(
    tokenizer: PreTrainedTokenizerBase,
    norms: Float[Tensor, " vocabulary"],
    counts: Int[Tensor, " vocabulary"],
    groups: Sequence[WordGroup] = WORD_GROUPS,
) -> tuple[WordGroupNorms, ...]:
    """Look up the norms of each group's words.

    A word is looked up as it stands within a sentence, with the space that many vocabularies put
    into its token; only where that is not one token, as it stands at the start of a text.

    Args:
        tokenizer: The model's.
        norms: Embedding norms by token id (length).
        counts: How often each token occurs in the data, by token id.
        groups: The words.
    """
    return tuple(_look_up(tokenizer, norms, counts, group) for group in groups)


def _look_up(
    tokenizer: PreTrainedTokenizerBase, norms: Tensor, counts: Tensor, group: WordGroup
) -> WordGroupNorms:
    found, split = [], []
    for word in group.words:
        token_id = _single_token(tokenizer, word)
        if token_id is None:
            split.append(word)
        else:
            found.append(WordNorm(word, token_id, float(norms[token_id]), int(counts[token_id])))
    lengths = [word.norm for word in found]
    return WordGroupNorms(
        name=group.name,
        words=tuple(found),
        split_words=tuple(split),
        mean_norm=fmean(lengths) if found else None,
        sd_norm=stdev(lengths) if len(found) > 1 else None,
        mean_count=fmean(word.count for word in found) if found else None,
    )


def _single_token(tokenizer: PreTrainedTokenizerBase, word: str) -> int | None:
    for text in (f" {word}", word):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) == 1 and ids[0] != tokenizer.unk_token_id:
            return int(ids[0])
    return None

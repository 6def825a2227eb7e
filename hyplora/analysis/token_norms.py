"""Embedding norms against token frequency: whether frequent tokens lie nearer the origin."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from scipy.stats import norm, spearmanr
from torch import Tensor

from hyplora.errors import AnalysisError

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from peft import PeftModel
    from transformers import PreTrainedModel

_IDS_AT_ONCE: Final = 16_384
_FEWEST_TOKENS: Final = 4
"""A rank correlation has an interval from so many on."""


@dataclass(frozen=True)
class NormBin:
    """Tokens of about the same frequency."""

    lowest_count: int
    highest_count: int
    """Both occur in the bin."""
    mean_log_count: float
    """Mean of the natural logarithm of the counts."""
    num_tokens: int
    mean_norm: float
    """Mean embedding norm (length)."""
    sd_norm: float | None
    """Standard deviation over the tokens (length); None with one."""


@dataclass(frozen=True)
class NormsByFrequency:
    """How embedding norms go with frequency."""

    num_tokens: int
    """Tokens that occur."""
    num_unseen: int
    """Tokens of the vocabulary that do not; they are in no other number but the next."""
    mean_norm_unseen: float | None
    """Mean embedding norm of those (length)."""
    spearman: float | None
    """Rank correlation of norm and count; above 0, frequent tokens are further out. None if all
    norms or all counts are the same."""
    spearman_low: float | None
    spearman_high: float | None
    """Its 95 % interval, by Fisher's transformation."""
    bins: tuple[NormBin, ...]
    """From rare to frequent."""


@torch.no_grad()
def embedding_norms(model: PreTrainedModel | PeftModel) -> Float[Tensor, " vocabulary"]:
    """Compute the norm of every row of a model's input embedding, as the model sees it.

    Where the embedding module scales its rows, as Gemma 3's does, so are the norms.

    Args:
        model: A transformers model, with or without an adapter.

    Returns:
        Norms (length) in float32 on the CPU.
    """
    embed = model.get_input_embeddings()
    ids = torch.arange(embed.num_embeddings, device=embed.weight.device)
    return torch.cat([embed(part).float().norm(dim=-1).cpu() for part in ids.split(_IDS_AT_ONCE)])


def norms_by_frequency(
    norms: Float[Tensor, " vocabulary"], counts: Int[Tensor, " vocabulary"], bins_a_decade: int = 3
) -> NormsByFrequency:
    """Put tokens into bins of about equal frequency and correlate norm with count.

    Args:
        norms: Embedding norms (length).
        counts: How often each token occurs in the data.
        bins_a_decade: Bins for each factor of ten of the counts.

    Raises:
        AnalysisError: If the two are of different vocabularies, or fewer than four tokens occur.
    """
    if len(norms) != len(counts):
        raise AnalysisError(
            f"got norms of {len(norms)} tokens and counts of {len(counts)}; count with as many "
            "ids as the embedding has rows"
        )
    is_seen = counts > 0
    seen_norms, seen_counts = norms[is_seen].double().numpy(), counts[is_seen].numpy()
    if len(seen_norms) < _FEWEST_TOKENS:
        raise AnalysisError(
            f"only {len(seen_norms)} tokens of the vocabulary occur in the data; give more text"
        )
    unseen = norms[~is_seen].double()
    spearman, low, high = _spearman(seen_norms, seen_counts)
    return NormsByFrequency(
        num_tokens=len(seen_norms),
        num_unseen=len(unseen),
        mean_norm_unseen=float(unseen.mean()) if len(unseen) else None,
        spearman=spearman,
        spearman_low=low,
        spearman_high=high,
        bins=_bins(seen_norms, seen_counts, bins_a_decade),
    )


def _bins(norms: np.ndarray, counts: np.ndarray, bins_a_decade: int) -> tuple[NormBin, ...]:
    # The small shift keeps powers of ten, whose logarithms may round down, out of the bin below.
    places = np.floor(np.log10(counts) * bins_a_decade + 1e-9).astype(int)
    bins = []
    for place in np.unique(places):
        inside, its_counts = norms[places == place], counts[places == place]
        bins.append(
            NormBin(
                lowest_count=int(its_counts.min()),
                highest_count=int(its_counts.max()),
                mean_log_count=float(np.log(its_counts).mean()),
                num_tokens=len(inside),
                mean_norm=float(inside.mean()),
                sd_norm=float(inside.std(ddof=1)) if len(inside) > 1 else None,
            )
        )
    return tuple(bins)


def _spearman(
    norms: np.ndarray, counts: np.ndarray
) -> tuple[float | None, float | None, float | None]:
    """Correlate ranks; the interval has Fieller, Hartley and Pearson's variance 1.06 / (n - 3)."""
    if np.ptp(norms) == 0 or np.ptp(counts) == 0:
        return None, None, None
    rho = float(spearmanr(norms, counts).statistic)
    centre = math.atanh(min(max(rho, -1 + 1e-12), 1 - 1e-12))
    half = float(norm.ppf(0.975)) * math.sqrt(1.06 / (len(norms) - 3))
    return rho, math.tanh(centre - half), math.tanh(centre + half)

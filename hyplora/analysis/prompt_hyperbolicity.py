"""Hyperbolicity of the points that a model makes of a prompt, with its adapter and without."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING

import torch
from scipy.stats import t as student
from torch import Tensor

from hyplora.analysis.hyperbolicity import (
    ALL_POINTS,
    HyperbolicitySummary,
    Sampling,
    measure_clouds,
)
from hyplora.errors import AnalysisError

if TYPE_CHECKING:
    from jaxtyping import Float
    from peft import PeftModel
    from transformers import PreTrainedModel

Prompt = Sequence[int]
"""Token ids, with the special tokens that the model is to see."""


@dataclass(frozen=True)
class Difference:
    """The same prompts measured twice, and compared prompt by prompt."""

    num_prompts: int
    """Prompts that could be measured both times."""
    mean: float
    """Mean of the differences of the relative deltas."""
    low: float | None
    high: float | None
    """95 % interval of the mean (Student's t over prompts); None with one prompt."""


@dataclass(frozen=True)
class PromptHyperbolicity:
    """Hyperbolicity of the prompts of a test set."""

    embeddings: HyperbolicitySummary
    """Of a prompt's distinct token embeddings."""
    hidden: HyperbolicitySummary
    """Of the final hidden states at all of its positions, with the adapter if there is one."""
    hidden_without_adapter: HyperbolicitySummary | None
    """The same with the adapter disabled; None if there is no adapter."""
    adapter_effect: Difference | None
    """With the adapter less without; None if there is no adapter or no prompt."""


def measure_prompts(
    model: PreTrainedModel | PeftModel,
    prompts: Sequence[Prompt],
    sampling: Sampling = ALL_POINTS,
) -> PromptHyperbolicity:
    """Measure prompts one by one, so that no padding becomes a point.

    Args:
        model: A causal language model, with an adapter if it is a PEFT model; in evaluation mode.
        prompts: Token ids.
        sampling: The same points and base points are drawn with the adapter and without.

    Raises:
        AnalysisError: If the model is in training mode or makes points that are not finite.
    """
    require_evaluation(model)
    embeddings = measure_clouds((embedding_points(model, each) for each in prompts), sampling)
    hidden = measure_clouds((final_hidden_points(model, each) for each in prompts), sampling)
    without = None
    if hasattr(model, "disable_adapter"):
        with model.disable_adapter():
            without = measure_clouds(
                (final_hidden_points(model, each) for each in prompts), sampling
            )
    return PromptHyperbolicity(
        embeddings=embeddings,
        hidden=hidden,
        hidden_without_adapter=without,
        adapter_effect=paired_difference(hidden, without) if without else None,
    )


@torch.no_grad()
def embedding_points(
    model: PreTrainedModel | PeftModel, prompt: Prompt
) -> Float[Tensor, "distinct dim"]:
    """Embed each distinct token of a prompt, as the model's embedding module gives it."""
    embed = model.get_input_embeddings()
    ids = torch.tensor(sorted(set(prompt)), dtype=torch.int64, device=embed.weight.device)
    return embed(ids)


@torch.no_grad()
def final_hidden_points(
    model: PreTrainedModel | PeftModel, prompt: Prompt
) -> Float[Tensor, "time dim"]:
    """Compute what the language model's head is given at each position: after the last norm."""
    if not len(prompt):
        return torch.zeros(0, 1)
    device = model.get_input_embeddings().weight.device
    output = model(
        input_ids=torch.tensor([list(prompt)], dtype=torch.int64, device=device),
        output_hidden_states=True,
        use_cache=False,
        logits_to_keep=1,  # a vocabulary's width of numbers a position, of which none is used
    )
    return output.hidden_states[-1][0]


def paired_difference(
    first: HyperbolicitySummary, second: HyperbolicitySummary
) -> Difference | None:
    """Compare relative deltas prompt by prompt, first less second.

    Returns:
        None if no prompt was measured both times.
    """
    pairs = zip(first.clouds, second.clouds, strict=True)
    gaps = [one.relative - other.relative for one, other in pairs if one and other]
    if not gaps:
        return None
    mean = fmean(gaps)
    if len(gaps) == 1:
        return Difference(1, mean, None, None)
    half = float(student.ppf(0.975, len(gaps) - 1)) * stdev(gaps) / math.sqrt(len(gaps))
    return Difference(len(gaps), mean, mean - half, mean + half)


def require_evaluation(model: PreTrainedModel | PeftModel) -> None:
    """Refuse a model whose dropout is on.

    Raises:
        AnalysisError: If the model is in training mode.
    """
    if model.training:
        raise AnalysisError("the model is in training mode, with dropout on; call model.eval()")

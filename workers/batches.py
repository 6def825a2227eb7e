"""The rows of each optimizer step, of each rank and of each forward pass.

Which rows make up which step is a pure function of seed and step, so a resumed training needs to
know nothing but its step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from workers.data import Example
from workers.ranks import rank, world_size
from workers.seeds import derive_seed, permutation

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor

    from workers.specs import TrainingSpec

IGNORED_LABEL = -100
"""Label of a position that does not count; cross_entropy's default."""

PAD_MULTIPLE = 8
"""Batches are padded to multiples of this: few distinct shapes for the kernels to be built for."""


@dataclass(frozen=True, eq=False)
class MicroBatch:
    """Rows for one forward pass, padded on the right."""

    input_ids: Int[Tensor, "row time"]

    answer_positions: Int[Tensor, "row answer"]
    """Positions whose logits predict the answer tokens; rows with shorter answers repeat one."""

    labels: Int[Tensor, "row answer"]
    """The answer tokens; `IGNORED_LABEL` where a row's answer has ended."""

    def to(self, device: torch.device) -> MicroBatch:
        """The same rows on another device."""
        return MicroBatch(
            self.input_ids.to(device, non_blocking=True),
            self.answer_positions.to(device, non_blocking=True),
            self.labels.to(device, non_blocking=True),
        )

    def without_labels(self) -> MicroBatch:
        """The same rows, none of which counts."""
        return MicroBatch(
            self.input_ids, self.answer_positions, torch.full_like(self.labels, IGNORED_LABEL)
        )


def num_steps(num_rows: int, training: TrainingSpec) -> int:
    """Optimizer steps of a training; the epochs follow each other without a gap."""
    whole = -(-num_rows * training.num_epochs // training.batch_size)
    return whole if training.max_steps is None else min(whole, training.max_steps)


def rows_of_step(num_rows: int, training: TrainingSpec, step: int) -> list[int]:
    """Indices of the rows of one optimizer step, over all ranks.

    Args:
        num_rows: Rows to train on.
        training: Batch size, epochs and seed.
        step: Steps done before this one.
    """
    first = step * training.batch_size
    last = min(first + training.batch_size, num_rows * training.num_epochs)
    return [
        _order_of_epoch(num_rows, training.seed, position // num_rows)[position % num_rows]
        for position in range(first, last)
    ]


def share_of_rank(examples: Sequence[Example], rank: int, world_size: int) -> list[Example]:
    """The rows of a step that one rank works on, longest first, with about equal work for each."""
    return sorted(examples, key=lambda example: -example.num_tokens)[rank::world_size]


def micro_batches(
    examples: Sequence[Example], micro_batch_size: int, pad_id: int
) -> Iterator[MicroBatch]:
    """Collate neighbouring rows into forward passes of at most `micro_batch_size` rows."""
    for first in range(0, len(examples), micro_batch_size):
        yield _collate(examples[first : first + micro_batch_size], pad_id)


@dataclass(frozen=True)
class Batching:
    """How this rank's share of the rows becomes forward passes."""

    micro_batch_size: int
    pad_id: int

    def of_step(self, rows: Sequence[Example]) -> list[MicroBatch]:
        """A rank left without a row joins in with one that does not count."""
        share = share_of_rank(rows, rank(), world_size())
        if not share:
            return [batch.without_labels() for batch in micro_batches(rows[:1], 1, self.pad_id)]
        return list(micro_batches(share, self.micro_batch_size, self.pad_id))

    def of_evaluation(self, rows: Sequence[Example]) -> list[MicroBatch]:
        """The same batches on any number of ranks, dealt out to them."""
        longest_first = share_of_rank(rows, rank=0, world_size=1)
        every = list(micro_batches(longest_first, self.micro_batch_size, self.pad_id))
        return every[rank() :: world_size()]


@lru_cache(maxsize=2)  # a step touches two epochs where one ends
def _order_of_epoch(num_rows: int, seed: int, epoch: int) -> list[int]:
    return permutation(num_rows, derive_seed(seed, "epoch", epoch))


def _collate(examples: Sequence[Example], pad_id: int) -> MicroBatch:
    longest = max(example.num_tokens for example in examples)
    longest_answer = max(example.num_answer_tokens for example in examples)
    width = -(-longest // PAD_MULTIPLE) * PAD_MULTIPLE
    input_ids = torch.full((len(examples), width), pad_id)
    answer_positions = torch.zeros(len(examples), longest_answer, dtype=torch.long)
    labels = torch.full((len(examples), longest_answer), IGNORED_LABEL)
    for row, example in enumerate(examples):
        input_ids[row, : example.num_tokens] = example.input_ids
        answer = slice(0, example.num_answer_tokens)
        answer_positions[row, answer] = torch.arange(
            example.num_prompt_tokens - 1, example.num_tokens - 1
        )
        labels[row, answer] = example.input_ids[example.num_prompt_tokens :]
    return MicroBatch(input_ids, answer_positions, labels)

"""The rows of each optimizer step, of each rank and of each forward pass.

Which rows make up which step is a pure function of seed and step, so a resumed training needs to
know nothing but its step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from workers.data import Example
from workers.packing import positions_of
from workers.ranks import rank, world_size
from workers.seeds import derive_seed, permutation

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor

    from workers.specs import TrainingSpec

IGNORED_LABEL = -100
"""Label of a position that does not count; cross_entropy's default."""


@dataclass(frozen=True, eq=False)
class MicroBatch:
    """Rows for one forward pass, one behind the other."""

    input_ids: Int[Tensor, "1 time"]

    position_ids: Int[Tensor, "1 time"]
    """Position of each token in its own row."""

    row_lengths: list[int]
    """Tokens of each row."""

    answer_positions: Int[Tensor, "1 answer"]
    """Positions whose logits predict the answer tokens."""

    labels: Int[Tensor, " answer"]
    """The answer tokens; `IGNORED_LABEL` where one does not count."""

    lines: list[int]
    """Where each row stands in its source."""

    def to(self, device: torch.device) -> MicroBatch:
        """The same rows on another device."""
        tensors = ("input_ids", "position_ids", "answer_positions", "labels")
        return replace(
            self, **{name: getattr(self, name).to(device, non_blocking=True) for name in tensors}
        )

    def without_labels(self) -> MicroBatch:
        """The same rows, none of which counts."""
        return replace(self, labels=torch.full_like(self.labels, IGNORED_LABEL))


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


def micro_batches(examples: Sequence[Example], max_tokens: int) -> Iterator[MicroBatch]:
    """Fill forward passes with rows up to `max_tokens`, first fit; a longer row goes alone.

    Few and full ones come out where the rows are sorted, longest first.
    """
    bins: list[list[Example]] = []
    room: list[int] = []
    for example in examples:
        place = next((at for at, left in enumerate(room) if example.num_tokens <= left), None)
        if place is None:
            bins.append([example])
            room.append(max_tokens - example.num_tokens)
        else:
            bins[place].append(example)
            room[place] -= example.num_tokens
    return map(_pack, bins)


@dataclass(frozen=True)
class Batching:
    """How this rank's share of the rows becomes forward passes."""

    max_tokens: int
    """Most tokens in one of them; 0 for a row each."""

    is_sharded: bool = False
    """Whether every rank must make as many of them, since all fetch weights for each."""

    def of_step(self, rows: Sequence[Example]) -> list[MicroBatch]:
        """A rank left without a row joins in with one that does not count."""
        shares = [share_of_rank(rows, each, world_size()) for each in range(world_size())]
        if not self.is_sharded:
            return self._filled(shares[rank()], rows, at_least=1)
        most = max(sum(1 for _ in micro_batches(share, self.max_tokens)) for share in shares)
        return self._filled(shares[rank()], rows, most)

    def of_evaluation(self, rows: Sequence[Example]) -> list[MicroBatch]:
        """The same batches on any number of ranks, dealt out to them."""
        every = list(micro_batches(share_of_rank(rows, rank=0, world_size=1), self.max_tokens))
        own = every[rank() :: world_size()]
        if self.is_sharded and len(own) < len(every[:: world_size()]):
            own.append(every[0].without_labels())
        return own

    def _filled(
        self, share: Sequence[Example], rows: Sequence[Example], at_least: int
    ) -> list[MicroBatch]:
        """Batches of a share, and of a short row that does not count if they are too few."""
        batches = list(micro_batches(share, self.max_tokens))
        shortest = min(rows, key=lambda row: row.num_tokens)
        for _ in range(at_least - len(batches)):
            batches += [batch.without_labels() for batch in micro_batches([shortest], 0)]
        return batches


@lru_cache(maxsize=2)  # a step touches two epochs where one ends
def _order_of_epoch(num_rows: int, seed: int, epoch: int) -> list[int]:
    return permutation(num_rows, derive_seed(seed, "epoch", epoch))


def _pack(examples: Sequence[Example]) -> MicroBatch:
    lengths = [example.num_tokens for example in examples]
    input_ids = torch.cat([example.input_ids for example in examples]).long()
    answers = torch.cat([example.is_answer for example in examples]).nonzero()[:, 0]
    return MicroBatch(
        input_ids=input_ids[None],
        position_ids=positions_of(lengths),
        row_lengths=lengths,
        answer_positions=answers[None] - 1,
        labels=input_ids[answers],
        lines=[example.line for example in examples],
    )

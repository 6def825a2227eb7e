"""From rows to batches: tokenization, held-out rows, and the rows of each step.

Only a row's answer and the token that ends the turn are learned. Which rows make up which step is
a pure function of seed and step, so a resumed training needs to know nothing but its step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from workers.errors import DataInvalidError, RowTooLongError
from workers.prompts import encode, end_of_turn_id, render_prompt
from workers.rows import RowError, iter_numbered_rows
from workers.seeds import derive_seed, permutation

if TYPE_CHECKING:  # a registered model ships this module to where jaxtyping may be missing
    from jaxtyping import Int
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from workers.specs import TrainingSpec


IGNORED_LABEL = -100
"""Label of a position that does not count; cross_entropy's default."""

PAD_MULTIPLE = 16
"""Batches are padded to multiples of this: few distinct shapes for the kernels to be built for."""


@dataclass(frozen=True, eq=False)
class Example:
    """A tokenized row: the prompt, then the answer with the token that ends the turn."""

    input_ids: Int[Tensor, " time"]
    num_prompt_tokens: int

    @property
    def num_tokens(self) -> int:
        """Tokens of prompt and answer."""
        return len(self.input_ids)

    @property
    def num_answer_tokens(self) -> int:
        """Tokens that count in the loss."""
        return self.num_tokens - self.num_prompt_tokens


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


def load_examples(
    path: Path, tokenizer: PreTrainedTokenizerBase, max_length: int | None
) -> list[Example]:
    """Read and tokenize the rows of a file.

    Args:
        path: JSON lines, plain or gzip.
        tokenizer: The base model's.
        max_length: Most tokens that a row may have; None for no bound.

    Raises:
        DataInvalidError: If the file or one of its rows cannot be read.
        RowTooLongError: If a row has more than `max_length` tokens.
    """
    try:
        lines, rows = zip(*iter_numbered_rows(path), strict=True)
    except RowError as error:
        raise DataInvalidError(f"data file {path.name}, {error}") from error
    except OSError as error:
        raise DataInvalidError(
            f"data file {path} cannot be read ({error.strerror}); "
            "upload it again, to storage that every worker sees"
        ) from error
    prompts = encode(tokenizer, [render_prompt(tokenizer, row) for row in rows])
    answers = encode(tokenizer, [row.output for row in rows])
    ending = [end_of_turn_id(tokenizer)]
    examples = [
        Example(torch.tensor(prompt + answer + ending, dtype=torch.int32), len(prompt))
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    _check_lengths(examples, lines, max_length)
    return examples


def split_held_out(
    examples: Sequence[Example], num_held_out: int, seed: int
) -> tuple[list[Example], list[Example]]:
    """Draw held-out rows by seed; both parts keep the order of the file.

    Returns:
        The rows to train on and the held-out rows.

    Raises:
        DataInvalidError: If no row would be left to train on.
    """
    if num_held_out >= len(examples):
        raise DataInvalidError(
            f"data.validation_rows is {num_held_out} and the training file has {len(examples)} "
            "rows, so none is left to train on; hold out fewer or upload more"
        )
    order = permutation(len(examples), derive_seed(seed, "held-out"))
    held_out = set(order[:num_held_out])
    return (
        [example for index, example in enumerate(examples) if index not in held_out],
        [example for index, example in enumerate(examples) if index in held_out],
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


def _check_lengths(
    examples: Sequence[Example], lines: Sequence[int], max_length: int | None
) -> None:
    too_long = [
        (line, example.num_tokens)
        for line, example in zip(lines, examples, strict=True)
        if max_length is not None and example.num_tokens > max_length
    ]
    if too_long:
        line, length = too_long[0]
        raise RowTooLongError(
            f"line {line} has {length} tokens and at most {max_length} are allowed (the smaller of "
            f"data.max_length and the base model's context); {len(too_long)} of {len(examples)} "
            "rows are too long: shorten them or leave them out"
        )


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

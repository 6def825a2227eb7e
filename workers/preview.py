"""What a training will come to, from its task alone: steps, sizes and memory, before it is run."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel

from workers.adapter import build_adapter
from workers.base_model import load_skeleton
from workers.batches import MicroBatch, micro_batches, num_steps
from workers.data import Example
from workers.memory import Device, MemoryEstimate, estimate_memory
from workers.packing import ATTENTION_NAME
from workers.specs import TrainingSpec
from workers.train_setup import TrainTask, read_data


@dataclass(frozen=True)
class TrainPreview:
    """A training as it would be."""

    steps: int
    """Optimizer steps."""

    num_train_rows: int
    """Rows to train on."""

    num_held_out_rows: int
    """Rows for the evaluation loss."""

    num_tokens: int
    """Tokens of the rows to train on, each row once."""

    longest_row: int
    """Tokens of the longest row, held-out ones included."""

    num_trainable_parameters: int
    """Size of the adapter."""

    num_parameters: int
    """Size of base model and adapter together."""

    memory: MemoryEstimate | None
    """Peak of one worker; None where it cannot be foretold."""


def preview(task: TrainTask, num_workers: int, device: Device) -> TrainPreview:
    """Tokenize the rows and build the model without its weights.

    Args:
        task: What to train.
        num_workers: Ranks that share each step.
        device: Where they train.

    Raises:
        WorkerError: For what would end the training itself, with the same message: a base model,
            rows or target modules that cannot be used.
    """
    _, data = read_data(task)
    rows = data.train
    model = _skeleton(task)
    return TrainPreview(
        steps=num_steps(len(rows), task.training),
        num_train_rows=len(rows),
        num_held_out_rows=len(data.held_out),
        num_tokens=sum(row.num_tokens for row in rows),
        longest_row=max(row.num_tokens for row in rows + data.held_out),
        num_trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        num_parameters=sum(p.numel() for p in model.parameters()),
        memory=estimate_memory(
            model,
            _largest_pass(rows, task.training, num_workers),
            task.training,
            num_workers,
            device,
        ),
    )


def _skeleton(task: TrainTask) -> PeftModel:
    base = load_skeleton(task.base_model, task.training.dtype)
    base.set_attn_implementation(ATTENTION_NAME)
    with torch.device("meta"):
        return build_adapter(base, task.adapter)


def _largest_pass(rows: Sequence[Example], training: TrainingSpec, num_workers: int) -> MicroBatch:
    """The most tokens that a worker may hold; the longest rows may well meet in one step."""
    longest_first = sorted(rows, key=lambda row: -row.num_tokens)
    share = longest_first[: -(-training.batch_size // num_workers)]
    batches = micro_batches(share, training.micro_batch_tokens)
    return max(batches, key=lambda batch: sum(batch.row_lengths))

"""What a training, or asking a model, will come to, before it is run: steps, sizes and memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel

from workers.adapter import build_adapter
from workers.base_model import load_skeleton, load_tokenizer
from workers.batches import MicroBatch, micro_batches, num_steps
from workers.chat_templates import set_chat_template
from workers.data import Example, Message, encode, render
from workers.errors import RowTooLongError
from workers.generate import bounded_prompts
from workers.memory import Device, MemoryEstimate, estimate_memory
from workers.packing import ATTENTION_NAME
from workers.specs import ChatTemplateName, TrainingSpec
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


@dataclass(frozen=True)
class PromptsPreview:
    """Prompts that a model would be given."""

    num_tokens: int
    """Tokens of all prompts, each once."""

    longest_row: int
    """Tokens of the longest prompt."""

    num_parameters: int
    """Size of the base model."""


def preview_prompts(
    base_model: str,
    template: ChatTemplateName | None,
    conversations: Mapping[str, Sequence[Sequence[Message]]],
    max_new_tokens: int | None = None,
) -> PromptsPreview:
    """Tokenize prompts and build the base model without its weights.

    Args:
        base_model: What the prompts are for.
        template: Their layout; by default the base model's own.
        conversations: Each up to where the model goes on, by what names them in messages.
        max_new_tokens: Most tokens of an answer; None if the model gives none.

    Raises:
        BaseModelNotFoundError: If the base model is not there.
        BaseModelUnusableError: If it is none, or its template refuses a conversation.
        RowTooLongError: If a prompt leaves nothing of the model's context for an answer.
    """
    tokenizer = load_tokenizer(base_model)
    set_chat_template(tokenizer, template)
    model = load_skeleton(base_model)
    lengths: list[int] = []
    for name, each in conversations.items():
        prompts = encode(tokenizer, [render(tokenizer, messages) for messages in each])
        lengths += map(len, prompts)
        if max_new_tokens is not None:
            try:
                bounded_prompts(model, prompts, max_new_tokens)
            except RowTooLongError as error:
                raise RowTooLongError(f"{name}: {error}") from error
    return PromptsPreview(sum(lengths), max(lengths), sum(p.numel() for p in model.parameters()))


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

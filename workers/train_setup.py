"""What a training is about, and everything it needs before its first step."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from workers.base_model import context_length, load_config, load_tokenizer
from workers.batches import Batching
from workers.chat_templates import set_chat_template
from workers.data import Example
from workers.errors import BaseModelUnusableError
from workers.model_setup import Base, add_adapter, load_base
from workers.prepare_data import PreparedData, prepare_data
from workers.specs import AdapterSpec, DataSpec, TrainingSpec
from workers.train_step import build_optimizer


@dataclass(frozen=True)
class TrainTask:
    """What to train, on which rows."""

    base_model: str
    """A folder, a Hugging Face id or an MLflow URI."""

    adapter: AdapterSpec
    """The adapter to train."""

    data: DataSpec
    """The rows, and how they are read."""

    files: Mapping[str, Path]
    """Where the uploaded files that `data` names lie, by id."""

    training: TrainingSpec
    """How the adapter is optimised."""

    identity: str | None = None
    """Told from others by this, a training resumes from any checkpoint with the same; by default
    all settings must be the same."""


@dataclass(frozen=True)
class TrainSetup:
    """Everything that stays the same from step to step."""

    data: PreparedData
    """The rows."""

    model: PeftModel
    """Base model and adapter, on this rank's device."""

    optimizer: torch.optim.Optimizer
    """Of the adapter."""

    batching: Batching
    """How rows become forward passes."""

    chat_template: str | None
    """The layout to keep with the adapter; None for the base model's own."""

    digest: str
    """Tells this training from others, so that none resumes from a foreign checkpoint."""


def read_data(task: TrainTask) -> tuple[PreTrainedTokenizerBase, PreparedData]:
    """Load the tokenizer with the chat template to use, and the rows.

    Raises:
        BaseModelNotFoundError: If the base model is not there.
        BaseModelUnusableError: If the tokenizer is not the model's, or cannot lay out a row.
        DataInvalidError: If a source or one of its rows cannot be read, or no row is left.
        DataLeakedError: If rows of an evaluation set are in the training data and may not be.
        RowTooLongError: If a row is too long.
    """
    tokenizer = load_tokenizer(task.base_model)
    set_chat_template(tokenizer, task.data.chat_template)
    config = load_config(task.base_model)
    data = prepare_data(task.data, task.files, tokenizer, context_length(config))
    highest = max(int(row.input_ids.max()) for row in data.train + data.held_out)
    vocab_size = config.get_text_config().vocab_size
    if highest >= vocab_size:
        raise BaseModelUnusableError(
            f"the tokenizer of base_model {task.base_model!r} makes token {highest} and the model "
            f"knows {vocab_size} tokens; give the model the tokenizer it was trained with"
        )
    return tokenizer, data


def prepare(task: TrainTask, device: torch.device) -> TrainSetup:
    """Read the rows and build the model and its optimizer.

    Raises:
        WorkerError: As `read_data` and `workers.model_setup` do.
    """
    tokenizer, data = read_data(task)
    base = load_base(task.base_model, task.training, device)
    return assemble(task, device, data, template_to_keep(task, tokenizer), base)


def assemble(
    task: TrainTask, device: torch.device, data: PreparedData, chat_template: str | None, base: Base
) -> TrainSetup:
    """Put together what has been read and loaded, with a new adapter and its optimizer.

    Raises:
        TargetModulesNotFoundError: If the adapter finds no place.
    """
    model = add_adapter(base, task.adapter, task.training, device)
    return TrainSetup(
        data=data,
        model=model,
        optimizer=build_optimizer(model, task.training),
        batching=Batching(
            max_tokens=task.training.micro_batch_tokens if base.can_pack else 0,
            is_sharded=task.training.shard_base_model,
        ),
        chat_template=chat_template,
        digest=_digest(task, data.train),
    )


def template_to_keep(task: TrainTask, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The layout to keep with the adapter; None for the base model's own."""
    return str(tokenizer.chat_template) if task.data.chat_template else None


def _digest(task: TrainTask, rows: Sequence[Example]) -> str:
    """Tells one training from another, so that none resumes from a foreign checkpoint."""
    if task.identity is not None:
        return hashlib.sha256(task.identity.encode()).hexdigest()
    settings = [
        task.base_model,
        *(spec.model_dump_json() for spec in (task.adapter, task.data, task.training)),
        str(sum(row.num_tokens for row in rows)),
    ]
    return hashlib.sha256("\n".join(settings).encode()).hexdigest()

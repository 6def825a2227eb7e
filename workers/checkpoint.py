"""Checkpoints: everything from which a training goes on as if it had never stopped.

    adapter/        as PEFT saves it; after the last step, the product
    optimizer.pt    AdamW's moments, read back as tensors only
    state.json      how far the training has come

There is no random state to keep: data order and dropout are functions of seed and step.
"""

import dataclasses
import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from peft import PeftModel

from workers.adapter import restore_weights, save_adapter
from workers.errors import AdapterUnusableError

FORMAT_VERSION: Final = 1

ADAPTER_FOLDER: Final = "adapter"
OPTIMIZER_FILE: Final = "optimizer.pt"
STATE_FILE: Final = "state.json"


@dataclass(frozen=True)
class TrainState:
    """How far a training has come."""

    task_digest: str
    """Identifies the data and settings; a checkpoint of another training is refused."""

    step: int = 0
    """Optimizer steps done."""

    train_loss: float | None = None
    """Mean loss of the last step's answer tokens, in nats."""

    eval_loss: float | None = None
    """Last evaluation loss, in nats; None where there was no evaluation."""

    num_tokens: int = 0
    """Tokens trained on, padding aside."""

    seconds: float = 0.0
    """Time spent, over all attempts that count."""


def save_checkpoint(
    folder: Path, model: PeftModel, optimizer: torch.optim.Optimizer, state: TrainState
) -> None:
    """Write a checkpoint into an empty folder."""
    save_adapter(model, folder / ADAPTER_FOLDER)
    torch.save(optimizer.state_dict(), folder / OPTIMIZER_FILE)
    record = {"format_version": FORMAT_VERSION, **dataclasses.asdict(state)}
    (folder / STATE_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def load_checkpoint(
    folder: Path, model: PeftModel, optimizer: torch.optim.Optimizer, task_digest: str
) -> TrainState:
    """Bring model and optimizer to where a checkpoint was written.

    Raises:
        AdapterUnusableError: If the checkpoint is damaged, or of another training or format.
    """
    state = _read_state(folder)
    if state.task_digest != task_digest:
        raise AdapterUnusableError(
            f"the checkpoint in {folder} was written by a training with other data or settings; "
            "submit a new job instead of resuming this one"
        )
    restore_weights(model, folder / ADAPTER_FOLDER)
    try:
        moments = torch.load(folder / OPTIMIZER_FILE, map_location="cpu", weights_only=True)
        optimizer.load_state_dict(moments)
    except (OSError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise AdapterUnusableError(
            f"the optimizer state in {folder} cannot be read: {error}; remove this checkpoint"
        ) from error
    return state


def _read_state(folder: Path) -> TrainState:
    try:
        record = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        version = record.pop("format_version")
        if version != FORMAT_VERSION:
            raise AdapterUnusableError(
                f"the checkpoint in {folder} has format {version} and this release reads "
                f"{FORMAT_VERSION}; resume it with the release that wrote it"
            )
        return TrainState(**record)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AdapterUnusableError(
            f"{STATE_FILE} in {folder} cannot be read: {error}; remove this checkpoint"
        ) from error

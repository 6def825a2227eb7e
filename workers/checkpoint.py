"""Checkpoints: everything from which a training goes on as if it had never stopped.

    adapter/        as PEFT saves it; after the last step, the product
    optimizer.pt    AdamW's moments, read back as tensors only
    state.json      how far the training has come, and the digests of all other files

There is no random state to keep: data order and dropout are functions of seed and step.
"""

import dataclasses
import errno
import hashlib
import json
import pickle  # nosec B403 # only for the name of its error
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from peft import PeftModel
from safetensors import SafetensorError

from workers.adapter import restore_weights, save_adapter
from workers.chat_templates import TEMPLATE_FILE
from workers.errors import AdapterUnusableError, CheckpointDamagedError, StorageFullError

FORMAT_VERSION: Final = 2

ADAPTER_FOLDER: Final = "adapter"
OPTIMIZER_FILE: Final = "optimizer.pt"
STATE_FILE: Final = "state.json"

_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_ROOM_WORDS: Final = re.compile("no space left|quota exceeded|file too large", re.IGNORECASE)
_LEAST_ROOM_BYTES: Final = 1 << 16


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
    folder: Path,
    model: PeftModel,
    optimizer: torch.optim.Optimizer,
    state: TrainState,
    chat_template: str | None = None,
) -> None:
    """Write a checkpoint into an empty folder.

    Args:
        folder: Where to.
        model: Holds the adapter.
        optimizer: Holds its moments.
        state: How far the training has come.
        chat_template: The layout to keep with the adapter, where it is not the base model's own.

    Raises:
        StorageFullError: If the disk has no room for it.
    """
    try:
        save_adapter(model, folder / ADAPTER_FOLDER)
        if chat_template is not None:
            (folder / ADAPTER_FOLDER / TEMPLATE_FILE).write_text(chat_template, encoding="utf-8")
        torch.save(optimizer.state_dict(), folder / OPTIMIZER_FILE)
        record = {
            "format_version": FORMAT_VERSION,
            **dataclasses.asdict(state),
            "sha256": _digests(folder),
        }
        (folder / STATE_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    except (OSError, RuntimeError, SafetensorError) as error:
        raise_if_full(error, folder)
        raise


def raise_if_full(error: Exception, folder: Path) -> None:
    """Say that a disk is full where that is why something could not be written.

    Raises:
        StorageFullError: If it is.
    """
    # torch and safetensors tell it in words alone, and their own.
    is_full = getattr(error, "errno", None) in _NO_ROOM or _NO_ROOM_WORDS.search(str(error))
    if is_full or shutil.disk_usage(folder).free < _LEAST_ROOM_BYTES:
        raise StorageFullError(
            f"a checkpoint cannot be written, since {folder} has no room: {error}; make room, or "
            "set TMPDIR of the workers or the storage of checkpoints to a larger disk"
        ) from error


def load_checkpoint(
    folder: Path, model: PeftModel, optimizer: torch.optim.Optimizer, task_digest: str
) -> TrainState:
    """Bring model and optimizer to where a checkpoint was written.

    Raises:
        CheckpointDamagedError: If it is incomplete, or its bytes are not those that were written.
        AdapterUnusableError: If it is of another training or format.
    """
    state = read_state(folder)
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
        raise CheckpointDamagedError(
            f"the optimizer state in {folder} cannot be read: {error}"
        ) from error
    return state


def read_state(folder: Path) -> TrainState:
    """How far a checkpoint has come; all of its bytes are checked.

    Raises:
        CheckpointDamagedError: If it is incomplete, or its bytes are not those that were written.
        AdapterUnusableError: If it is of another format.
    """
    try:
        record = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        version, digests = record.pop("format_version"), record.pop("sha256", {})
        if version != FORMAT_VERSION:
            raise AdapterUnusableError(
                f"the checkpoint in {folder} has format {version} and this release reads "
                f"{FORMAT_VERSION}; resume it with the release that wrote it"
            )
        state = TrainState(**record)
        damaged = [name for name, digest in digests.items() if _digest(folder / name) != digest]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointDamagedError(f"{STATE_FILE} in {folder} cannot be read: {error}") from error
    if damaged or not digests:
        raise CheckpointDamagedError(
            f"{', '.join(damaged) or 'everything'} in {folder} is not what was written"
        )
    return state


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _digest(path) for path in files}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Tokenized rows, kept under the digest of what they were made from.

A second attempt at a job, the other workers of a machine and the trials of a search find them.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from workers.cache import cache_folder, remove_unused
from workers.data import Example, LossOn, stacked, tokenize, unstacked

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from workers.sources import NumberedRow

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
"""Part of every key: raised when `tokenize` makes other tokens of the same rows."""


def tokenize_cached(
    rows: Sequence[NumberedRow], tokenizer: PreTrainedTokenizerBase, loss_on: LossOn
) -> list[Example]:
    """As `workers.data.tokenize`, once for the same rows, tokenizer and template.

    A cache that cannot be written costs time and nothing else.
    """
    path = cache_folder("tokens") / f"{_key(rows, tokenizer, loss_on)}.safetensors"
    try:
        return _load(path)
    except (OSError, SafetensorError, KeyError):
        examples = tokenize(rows, tokenizer, loss_on)
    try:
        _save(path, examples)
    except (OSError, SafetensorError) as error:
        logger.warning("tokens are not kept in %s: %s", path.parent, error)
    return examples


def _key(rows: Sequence[NumberedRow], tokenizer: PreTrainedTokenizerBase, loss_on: LossOn) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # its vocabulary is not to be had as one text
        identity = f"{tokenizer.name_or_path}\0{sorted(tokenizer.get_vocab().items())}"
    else:
        identity = backend.to_str()
    settings = (FORMAT_VERSION, loss_on, tokenizer.chat_template, tokenizer.eos_token_id, identity)
    total = hashlib.sha256(repr(settings).encode())
    for line, row in rows:
        total.update(f"\n{line} {row.model_dump_json()}".encode())
    return total.hexdigest()


def _save(path: Path, examples: Sequence[Example]) -> None:
    """Write beside the target and rename, so that others never see half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_unused(path.parent)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="partial-") as partial:
        save_file(stacked(examples), Path(partial) / path.name)
        (Path(partial) / path.name).replace(path)


def _load(path: Path) -> list[Example]:
    arrays = load_file(path)
    os.utime(path)
    return unstacked(arrays)

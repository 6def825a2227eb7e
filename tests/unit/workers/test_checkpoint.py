"""What a full disk or exhausted memory does to a training."""

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.unit.workers.recording import run, task_for
from workers import train_loop
from workers.checkpoint import raise_if_full
from workers.errors import OutOfMemoryError, StorageFullError


@contextmanager
def small_files() -> Iterator[None]:
    """No file may grow past 20 KB, as if the disk ended there.

    Not the file either that pytest may be writing its report to: keep it to the call itself.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_that_does_not_fit_the_disk_ends_the_training_with_its_reason(
    tiny_model_dir: Path, rows: Path, tmp_path: Path
) -> None:
    with pytest.raises(StorageFullError, match=r"no room: .*make room"), small_files():
        run(task_for(tiny_model_dir, rows, max_steps=2), tmp_path / "run")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("[Errno 28] Error writing bytes to file. Detail: No space left on device"),
        RuntimeError("I/O error: Disk quota exceeded (os error 122)"),
    ],
)
def test_a_full_disk_is_known_by_number_or_words(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(StorageFullError):
        raise_if_full(error, tmp_path)


def test_another_error_of_the_disk_is_not_taken_for_a_full_one(tmp_path: Path) -> None:
    raise_if_full(OSError(errno.EIO, "Input/output error"), tmp_path)


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_memory_that_runs_out_ends_the_training_with_what_helps(
    kind: str,
    tiny_model_dir: Path,
    rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def exhaust(*_: object) -> None:
        if kind == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        torch.empty(1 << 60)

    monkeypatch.setattr(train_loop, "train_step", exhaust)
    with pytest.raises(OutOfMemoryError, match=r"training\.micro_batch_tokens"):
        run(task_for(tiny_model_dir, rows, max_steps=1), tmp_path / "run")


def test_another_error_of_torch_is_not_taken_for_lack_of_memory(
    tiny_model_dir: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise NotImplementedError("shapes do not match")

    monkeypatch.setattr(train_loop, "train_step", fail)
    with pytest.raises(NotImplementedError, match="shapes do not match"):
        run(task_for(tiny_model_dir, rows, max_steps=1), tmp_path / "run")

"""A training's folder of checkpoints on storage, where one process writes without Ray Train."""

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pyarrow.fs import FileSystem, FileType, copy_files
from ray.train import Checkpoint

from jobs.ray_reporter import is_whole, lend
from jobs.run_folder import CHECKPOINT_PREFIX, checkpoint_names, remove_leftovers
from workers.checkpoint import OPTIMIZER_FILE, raise_if_full

_NAME = "checkpoint_%Y-%m-%d_%H-%M-%S.%f"
assert _NAME.replace("%Y", "2026").startswith(CHECKPOINT_PREFIX)


class StoredCheckpoints:
    """The newest checkpoints of one training.

    Args:
        storage_path: Folder or address of all runs.
        run_name: The training's folder within it.
        num_kept: Checkpoints that stay when another comes.
    """

    def __init__(self, storage_path: str, run_name: str, num_kept: int) -> None:
        self._filesystem, root = FileSystem.from_uri(storage_path)
        self._folder = f"{root}/{run_name}"
        self._num_kept = num_kept

    def add(self, directory: Path) -> None:
        """Move a checkpoint here; one that is cut off in the copy is not resumed from.

        Raises:
            StorageFullError: If there is no room for it.
        """
        target = f"{self._folder}/{datetime.now(UTC).strftime(_NAME)}"
        try:
            self._filesystem.create_dir(target, recursive=True)
            copy_files(str(directory), target, destination_filesystem=self._filesystem)
        except OSError as error:
            raise_if_full(error, directory)
            raise
        finally:
            shutil.rmtree(directory)
        for name in self.names()[: -self._num_kept]:
            self._filesystem.delete_dir(f"{self._folder}/{name}")

    def names(self) -> list[str]:
        """Of all that are there, the oldest first."""
        return checkpoint_names(self._filesystem, self._folder)

    def newest_first(self) -> Iterator[AbstractContextManager[Path]]:
        """Lend those that are whole."""
        for name in reversed(self.names()):
            stored = Checkpoint(f"{self._folder}/{name}", self._filesystem)
            if is_whole(stored):
                yield lend(stored)


@contextmanager
def lend_stored(storage_path: str, name: str) -> Iterator[Path | None]:
    """A checkpoint as a folder that can be read within the context; None if it is gone.

    Args:
        storage_path: Folder or address of all runs.
        name: Of the run's folder and the checkpoint, with a slash between.
    """
    filesystem, root = FileSystem.from_uri(storage_path)
    path = f"{root}/{name}"
    if filesystem.get_file_info(path).type is not FileType.Directory:
        yield None
        return
    with lend(Checkpoint(path, filesystem)) as folder:
        yield folder


def keep_adapter_alone(storage_path: str, run_name: str, checkpoint: str) -> None:
    """Remove what a training has left but the adapter of its last checkpoint.

    Args:
        storage_path: Folder or address of all runs.
        run_name: The training's folder within it.
        checkpoint: Name of the last one.
    """
    remove_leftovers(storage_path, run_name, {checkpoint})
    filesystem, root = FileSystem.from_uri(storage_path)
    path = f"{root}/{run_name}/{checkpoint}/{OPTIMIZER_FILE}"
    if filesystem.get_file_info(path).type is FileType.File:
        filesystem.delete_file(path)


def remove_run(storage_path: str, run_name: str) -> None:
    """Remove all that a training has left, if there is anything."""
    filesystem, root = FileSystem.from_uri(storage_path)
    if filesystem.get_file_info(f"{root}/{run_name}").type is FileType.Directory:
        filesystem.delete_dir(f"{root}/{run_name}")

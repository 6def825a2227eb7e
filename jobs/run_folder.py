"""The folder in which Ray Train keeps a run, where a crash can leave what Ray Train refuses."""

import json
import logging
from collections.abc import Collection

from pyarrow.fs import FileSelector, FileSystem, FileType

logger = logging.getLogger(__name__)

SNAPSHOT_FILE = "checkpoint_manager_snapshot.json"
"""Ray Train's list of checkpoints, which it rewrites in place."""

CHECKPOINT_PREFIX = "checkpoint_2"
"""How Ray Train begins the name of a checkpoint, which is the time of its making."""

_STATE_FILE = "state.json"
"""What `workers.checkpoint` writes last of all; it holds the step."""


def drop_damaged_snapshot(storage_path: str, run_name: str) -> None:
    """Set Ray Train's list of checkpoints aside if a crash cut it off or it names what is gone.

    Ray Train would end every attempt at the run over it. The checkpoints themselves stay, and the
    workers find them in the folder.
    """
    filesystem, root = FileSystem.from_uri(storage_path)
    folder = f"{root}/{run_name}"
    path = f"{folder}/{SNAPSHOT_FILE}"
    if filesystem.get_file_info(path).type is not FileType.File:
        return
    with filesystem.open_input_stream(path) as file:
        content = file.read()
    try:
        named = [each["checkpoint_dir_name"] for each in json.loads(content)["checkpoint_results"]]
        found = filesystem.get_file_info([f"{folder}/{name}" for name in named])
        missing = [info.path for info in found if info.type is FileType.NotFound]
        if not missing:
            return
        problem = f"{missing[0]} is gone"
    except (ValueError, KeyError, TypeError) as error:
        problem = str(error)
    logger.warning("Ray Train's list of checkpoints in %s is set aside: %s", folder, problem)
    filesystem.move(path, f"{path}.damaged")


def remove_leftovers(storage_path: str, run_name: str, kept: Collection[str]) -> None:
    """Remove the checkpoints that a run which has ended does not need.

    A driver that is killed can leave some that its successor does not know of: stored and not yet
    noted, cut off in the copy, or about to be removed.

    Args:
        storage_path: Folder or address of all runs.
        run_name: The run's folder within it.
        kept: Names of the checkpoints that stay.
    """
    filesystem, root = FileSystem.from_uri(storage_path)
    for name in checkpoint_names(filesystem, f"{root}/{run_name}"):
        if name not in kept:
            logger.info("%s, which is not needed any more, is removed", name)
            filesystem.delete_dir(f"{root}/{run_name}/{name}")


def checkpoint_names(filesystem: FileSystem, folder: str) -> list[str]:
    """Names of the checkpoints in a run's folder, the oldest first."""
    found = filesystem.get_file_info(FileSelector(folder, allow_not_found=True))
    return sorted(
        info.base_name
        for info in found
        if info.type is FileType.Directory and info.base_name.startswith(CHECKPOINT_PREFIX)
    )


def stored_sizes(storage_path: str, run_name: str) -> dict[int, int] | None:
    """Bytes of each checkpoint in a run's folder, by its step.

    Args:
        storage_path: Folder or address of all runs.
        run_name: The run's folder within it.

    Returns:
        None if there is no such storage, which says nothing about the checkpoints.
    """
    filesystem, root = FileSystem.from_uri(storage_path)
    if filesystem.get_file_info(root).type is FileType.NotFound:
        return None
    folder, sizes = f"{root}/{run_name}", {}
    for name in checkpoint_names(filesystem, folder):
        try:
            with filesystem.open_input_stream(f"{folder}/{name}/{_STATE_FILE}") as file:
                step = int(json.loads(file.read())["step"])
            found = filesystem.get_file_info(FileSelector(f"{folder}/{name}", recursive=True))
        except (OSError, ValueError, KeyError, TypeError) as error:
            # Being removed at this moment, being copied, or damaged.
            logger.info("%s in %s is passed over: %s", name, folder, error)
            continue
        sizes[step] = sum(info.size for info in found if info.type is FileType.File)
    return sizes

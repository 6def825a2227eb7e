"""The folder in which Ray Train keeps a run, where a crash can leave what Ray Train refuses."""

import json
import logging

from pyarrow.fs import FileSystem, FileType

logger = logging.getLogger(__name__)

SNAPSHOT_FILE = "checkpoint_manager_snapshot.json"
"""Ray Train's list of checkpoints, which it rewrites in place."""


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

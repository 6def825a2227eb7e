"""Predictions of a worker, kept on the job's storage while they grow."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyarrow.fs import FileSystem, FileType, LocalFileSystem, copy_files

from jobs.polling import Poller
from workers.predictions import Prediction, read_predictions

logger = logging.getLogger(__name__)

_COPY_INTERVAL_S = 30.0


@contextmanager
def stored_file(folder: str, name: str) -> Iterator[Path]:
    """A file of a storage folder as a local path that may grow.

    On a local or shared file system it is the file itself. Elsewhere it is a copy, which goes back
    every so often and at the end; what a kill takes between two copies is asked again.

    Args:
        folder: A path or an address such as s3://bucket/folder; it need not exist.
        name: The file's name.
    """
    filesystem, root = FileSystem.from_uri(folder)
    if isinstance(filesystem, LocalFileSystem):
        Path(root).mkdir(parents=True, exist_ok=True)
        yield Path(root) / name
        return
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / name
        _fetch(filesystem, f"{root}/{name}", path)
        poller = Poller(
            "predictions-copy", lambda: _copied(path, filesystem, root), _COPY_INTERVAL_S
        )
        try:
            yield path
        finally:
            poller.close()
            _store(path, filesystem, root)


def read_stored(folder: str, name: str) -> list[Prediction]:
    """The predictions of a file that `stored_file` kept.

    Raises:
        PredictionsUnusableError: If the file is not there or holds something else.
    """
    filesystem, root = FileSystem.from_uri(folder)
    if isinstance(filesystem, LocalFileSystem):
        return read_predictions(Path(root) / name)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / name
        _fetch(filesystem, f"{root}/{name}", path)
        return read_predictions(path)


def _fetch(filesystem: FileSystem, source: str, path: Path) -> None:
    if filesystem.get_file_info(source).type is FileType.File:
        copy_files(source, str(path), filesystem, LocalFileSystem())


def _copied(path: Path, filesystem: FileSystem, root: str) -> bool:
    try:
        _store(path, filesystem, root)
    except OSError as error:
        logger.warning("%s is copied to storage later: %s", path.name, error)
    return False


def _store(path: Path, filesystem: FileSystem, root: str) -> None:
    if path.exists():
        filesystem.create_dir(root)
        copy_files(str(path), f"{root}/{path.name}", LocalFileSystem(), filesystem)

"""The adapter of a model version as a tar: the files that PEFT reads, and nothing else of it.

Only files of known names are handed out, and weights only as safetensors; the code that MLflow
keeps beside them, and anything that could be a pickle, stays there. The same version makes the same
bytes each time.
"""

import asyncio
import errno
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from service.boundaries import Artifact, ModelVersion, Registry
from service.callers import Caller
from service.errors import (
    ModelVersionNotFoundError,
    NoAdapterError,
    RefusedError,
    StorageFullError,
)
from service.models import Models

_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
HANDED_OUT = frozenset(
    {
        _CONFIG,
        _WEIGHTS,
        "README.md",
        "added_tokens.json",
        "chat_template.jinja",
        "merges.txt",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
        "vocab.txt",
    }
)
"""Names of the files of an adapter and of the tokenizer that it was trained with."""

_CHUNK_BYTES = 1024**2
_MAX_AT_A_TIME = 2
"""Archives that are put together at once; each keeps a thread and room on the disk."""
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class AdapterArchive:
    """A tar on the disk that is gone as soon as it is closed."""

    filename: str
    """What to call it."""

    size_bytes: int
    """Its length."""

    file: BinaryIO

    def pieces(self) -> Iterator[bytes]:
        """Its content, a piece at a time."""
        with self.file:
            while piece := self.file.read(_CHUNK_BYTES):
                yield piece


class Adapters:
    """The adapters of model versions; those that `acting_for` answers are one caller's alone.

    Args:
        models: Knows the versions.
        registry: Has their files.
    """

    def __init__(self, models: Models, registry: Registry) -> None:
        self._models = models
        self._registry = registry
        self._places = asyncio.Semaphore(_MAX_AT_A_TIME)

    def acting_for(self, caller: Caller) -> Self:
        """The adapters as they are for a caller."""
        acting = copy(self)
        acting._models = self._models.acting_for(caller)
        return acting

    async def archive(self, name: str, selector: str) -> AdapterArchive:
        """A version's adapter; complete before the first byte is sent.

        Raises:
            MlflowUnavailableError: If MLflow does not answer.
            ModelAliasNotFoundError: If the model has no such alias.
            ModelNotFoundError: If there is no such model.
            ModelVersionNotFoundError: If the model has no such version.
            NoAdapterError: If it holds no adapter in safetensors.
            StorageFullError: If the disk has no room for it.
        """
        version = (await self._models.version(name, selector)).version
        try:
            found = await self._registry.files(name, version.version)
            names = _handed_out(version, found)
            async with self._places:
                file = await self._pack(version, names)
        except RefusedError as error:
            raise ModelVersionNotFoundError(
                f"the files of {name}/{version.version} are gone from MLflow: {error}"
            ) from error
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            raise StorageFullError(
                "the service has no room to put the adapter together; make room where it keeps "
                "temporary files"
            ) from error
        size_bytes = file.seek(0, 2)
        file.seek(0)
        return AdapterArchive(f"{name}-{version.version}.tar", size_bytes, file)

    async def _pack(self, version: ModelVersion, names: Sequence[str]) -> BinaryIO:
        """Download file by file into a nameless tar, which no crash can leave behind."""
        packed: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115  # the answer closes it
        try:
            with (
                tempfile.TemporaryDirectory(prefix="hyplora-") as scratch,
                tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
            ):
                for name in names:
                    path = await self._registry.fetch(
                        version.name, version.version, name, Path(scratch)
                    )
                    await asyncio.to_thread(_add, tar, path, name, version)
        except BaseException:
            packed.close()
            raise
        return packed


def _handed_out(version: ModelVersion, found: Sequence[Artifact]) -> list[str]:
    """The names of the files to hand out, sorted, so that the configuration comes first."""
    names = sorted(HANDED_OUT & {file.path for file in found})
    if missing := [name for name in (_CONFIG, _WEIGHTS) if name not in names]:
        raise NoAdapterError(
            f"{version.name}/{version.version} is a registered model, but no adapter: it has no "
            f"{' and no '.join(missing)}"
        )
    return names


def _add(tar: tarfile.TarFile, path: Path, name: str, version: ModelVersion) -> None:
    """Put a file into a tar; nothing of it tells when or by whom that was done."""
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        if name == _WEIGHTS:
            _require_safetensors(file, size_bytes, version)
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = size_bytes, 0o644
        tar.addfile(entry, file)


def _require_safetensors(file: BinaryIO, size_bytes: int, version: ModelVersion) -> None:
    """Refuse what only has the name: the format begins with the length of a JSON header."""
    length = int.from_bytes(file.read(8), "little")
    is_sound = length + 8 <= size_bytes and file.read(1) == b"{"
    file.seek(0)
    if not is_sound:
        raise NoAdapterError(
            f"{_WEIGHTS} of {version.name}/{version.version} is not in the format of its name"
        )

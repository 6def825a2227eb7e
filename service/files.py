"""Uploaded data sets: received, validated row by row, and kept under the digest of their bytes."""

import asyncio
import errno
import hashlib
import os
import secrets
import time
from collections.abc import AsyncIterable, Iterable, Sequence
from contextlib import suppress
from copy import copy
from pathlib import Path, PurePosixPath
from typing import Self

from jobs.tickets import FileRef
from service.audit import record
from service.callers import DEFAULT_PROJECT, Caller, visible_project
from service.database import Database
from service.errors import (
    DataFileNotFoundError,
    DatasetInvalidError,
    FieldError,
    MissingFileError,
    StorageFullError,
    UploadTooLargeError,
)
from service.paging import newest_first
from service.tables import UploadedFile, utc_now
from workers.rows import RowError, iter_rows
from workers.tasks.evaluation_rows import parse_either_row

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_ABANDONED_AFTER_S = 24 * 3600.0


class Files:
    """The data sets of one database and one folder.

    A file lies under its final name only when it is complete and valid: it is written beside it
    and then renamed. Those that `acting_for` answers are one caller's alone.

    Args:
        database: Where the records are.
        folder: Where the bytes are, on storage that every node of the cluster sees.
        max_bytes: Largest file that is accepted.
    """

    def __init__(self, database: Database, folder: Path, max_bytes: int) -> None:
        self._database = database
        self._folder = folder
        self._incoming = folder / "incoming"
        self._max_bytes = max_bytes
        self._caller: Caller | None = None

    def acting_for(self, caller: Caller) -> Self:
        """The files as they are for a caller: others are not found, and uploads are audited."""
        acting = copy(self)
        acting._caller = caller
        return acting

    def prepare(self) -> None:
        """Create the folders, and remove what uploads of a service that was killed left there."""
        self._incoming.mkdir(parents=True, exist_ok=True)
        for path in self._incoming.iterdir():
            # Another replica may remove it first; a younger one may still be arriving there.
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _ABANDONED_AFTER_S:
                    path.unlink()

    async def add(self, filename: str, content: AsyncIterable[bytes]) -> UploadedFile:
        """Take in a data set.

        Args:
            filename: Its name on the user's machine; only ever shown.
            content: Its bytes as they arrive.

        Raises:
            UploadTooLargeError: If it is larger than accepted.
            DatasetInvalidError: If a row is not valid, or there is none.
            StorageFullError: If the disk is full.
        """
        incoming = await asyncio.to_thread(_IncomingFile, self._incoming / secrets.token_hex(16))
        try:
            await self._receive(incoming, content)
            num_rows = await asyncio.to_thread(_count_rows, incoming.path)
            sha256 = incoming.digest.hexdigest()
            await asyncio.to_thread(incoming.path.replace, self._folder / sha256)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            raise StorageFullError(
                "there is no room for this file; remove old files on the server or enlarge its disk"
            ) from error
        finally:
            await asyncio.to_thread(incoming.discard)
        file = UploadedFile(
            id=f"file-{secrets.token_hex(8)}",
            project=self._caller.project if self._caller else DEFAULT_PROJECT,
            filename=_display_name(filename),
            size_bytes=incoming.size_bytes,
            sha256=sha256,
            num_rows=num_rows,
            created_at=utc_now(),
        )
        async with self._database.writing() as session:
            session.add(file)
            record(session, self._caller, "file.create", file.id, file.project)
        return file

    async def get(self, file_id: str) -> UploadedFile:
        """The record of a data set.

        Raises:
            DataFileNotFoundError: If there is none.
        """
        async with self._database.reading() as session:
            file = await session.get(UploadedFile, file_id)
        if file is None or visible_project(self._caller) not in {None, file.project}:
            raise DataFileNotFoundError(f"there is no file {file_id!r}; GET /v1/files lists them")
        return file

    async def page(
        self, limit: int, after: str | None = None
    ) -> tuple[Sequence[UploadedFile], bool]:
        """Data sets, newest first, and whether there are more.

        Args:
            limit: Most records that are returned.
            after: Id of the last file of the page before.

        Raises:
            DataFileNotFoundError: If `after` is no file.
        """
        last = await self.get(after) if after is not None else None
        query = newest_first(UploadedFile, limit, last)
        if (project := visible_project(self._caller)) is not None:
            query = query.where(UploadedFile.project == project)
        async with self._database.reading() as session:
            files = (await session.scalars(query)).all()
        return files[:limit], len(files) > limit

    async def refs(self, file_ids: Iterable[str]) -> dict[str, FileRef]:
        """Where drivers find files.

        Raises:
            MissingFileError: If the bytes of one are no longer there.
        """
        return {file_id: await self._ref(await self.get(file_id)) for file_id in file_ids}

    async def _ref(self, file: UploadedFile) -> FileRef:
        path = self._folder / file.sha256
        if await asyncio.to_thread(_size_of, path) != file.size_bytes:
            raise MissingFileError(
                f"{file.id} is no longer in the storage of uploaded files, or is damaged; "
                "upload it again and submit a new job"
            )
        return FileRef(uri=str(path), sha256=file.sha256, num_rows=file.num_rows)

    async def _receive(self, incoming: "_IncomingFile", content: AsyncIterable[bytes]) -> None:
        async for chunk in content:
            if incoming.size_bytes + len(chunk) > self._max_bytes:
                raise UploadTooLargeError(
                    f"the file has more than {self._max_bytes} bytes, the most this service "
                    "accepts; compress it with gzip or split it"
                )
            await asyncio.to_thread(incoming.write, chunk)
        await asyncio.to_thread(incoming.seal)


class _IncomingFile:
    """A file that is being written; its methods block."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        self.digest = hashlib.sha256()
        self._file = path.open("xb")

    def write(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self.digest.update(chunk)
        self.size_bytes += len(chunk)

    def seal(self) -> None:
        """Get everything on the disk, so that a power cut leaves no half file behind a record."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def discard(self) -> None:
        """Remove the file, unless it was renamed in the meantime."""
        self._file.close()
        self.path.unlink(missing_ok=True)


def _count_rows(path: Path) -> int:
    try:
        return sum(1 for _ in iter_rows(path, parse_either_row))
    except RowError as error:
        raise DatasetInvalidError(
            str(error),
            [FieldError(field=error.field or "row", line=error.line, message=error.problem)],
        ) from error


def _size_of(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _display_name(filename: str) -> str:
    name = PurePosixPath(filename.replace("\\", "/")).name
    return "".join(char for char in name if char.isprintable())[:255] or "rows.jsonl"

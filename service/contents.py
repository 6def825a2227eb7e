"""The bytes of uploaded data sets: received, kept under their digest, and removed with care.

Several records, of any project, share the bytes of one digest. A record never comes before its
bytes and never outlives them: who puts bytes into their place, or takes them away, holds the lock
of their digest until the records say so. That is the one work on files inside a transaction, a
rename or an unlink. Before bytes can be left without a record, a `Leftover` is noted, so that a
service that is killed at any moment leaves nothing that is not found again.
"""

import asyncio
import errno
import hashlib
import logging
import os
import secrets
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from service.database import Database
from service.errors import (
    ServiceError,
    StorageFullError,
    StorageUnavailableError,
    UploadTooLargeError,
)
from service.file_states import FileStatus
from service.tables import Leftover, UploadedFile, utc_now

logger = logging.getLogger(__name__)

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_ABANDONED_AFTER_S = 24 * 3600.0
_SETTLED_AFTER = timedelta(minutes=10)
"""Age at which no transaction that could give bytes a record is still under way."""


class Contents:
    """The bytes of one folder, for the records of one database.

    Args:
        database: Where the records are.
        folder: Where the bytes are, on storage that every node of the cluster sees.
    """

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder
        self._incoming = folder / "incoming"

    def prepare(self) -> None:
        """Create the folders, and remove what uploads of a service that was killed left there."""
        self._incoming.mkdir(parents=True, exist_ok=True)
        for path in self._incoming.iterdir():
            # Another replica may remove it first; a younger one may still be arriving there.
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _ABANDONED_AFTER_S:
                    path.unlink()

    def path(self, sha256: str) -> Path:
        """Where the bytes of a digest lie, if they do."""
        return self._folder / sha256

    async def open(self, sha256: str, size_bytes: int) -> BinaryIO | None:
        """The bytes of a digest, to be closed; None if they are gone, or are not as many.

        Raises:
            StorageUnavailableError: If the disk refuses.
        """
        with _explained():
            return await asyncio.to_thread(_open, self.path(sha256), size_bytes)

    @asynccontextmanager
    async def receive(
        self, content: AsyncIterable[bytes], max_bytes: int
    ) -> AsyncIterator["IncomingFile"]:
        """Write bytes beside their final place as they arrive; what is not kept is removed.

        Raises:
            UploadTooLargeError: If there are more than accepted.
            StorageFullError: If the disk is full.
            StorageUnavailableError: If the disk refuses for another reason.
        """
        with _explained():
            incoming = await asyncio.to_thread(IncomingFile, self._incoming / secrets.token_hex(16))
        try:
            with _explained():
                await _receive(incoming, content, max_bytes)
            yield incoming
        finally:
            await asyncio.to_thread(incoming.discard)

    async def keep(
        self, incoming: "IncomingFile", file: UploadedFile, note: Callable[[AsyncSession], None]
    ) -> None:
        """Put bytes that have arrived into their place and add their record.

        Args:
            incoming: The bytes.
            file: The record.
            note: What else belongs into its transaction.

        Raises:
            StorageFullError: If the disk is full; as with other errors, nothing is kept.
            StorageUnavailableError: If the disk refuses for another reason.
        """
        async with self._database.writing() as session:
            leftover = self.condemn(session, file.sha256)
        try:
            async with self._database.writing() as session:
                await _lock(session, file.sha256)
                with _explained():
                    await asyncio.to_thread(_put, incoming.path, self.path(file.sha256))
                session.add(file)
                note(session)
                await session.execute(delete(Leftover).where(Leftover.id == leftover.id))
        except Exception:
            await self.clear(leftover)
            raise

    def condemn(self, session: AsyncSession, sha256: str) -> Leftover:
        """Note that bytes may be without a record soon; `clear` them after the transaction."""
        leftover = Leftover(id=secrets.token_hex(16), sha256=sha256, created_at=utc_now())
        session.add(leftover)
        return leftover

    async def clear(self, leftover: Leftover) -> None:
        """Remove bytes, unless a record needs them; where that fails, `sweep` tries again."""
        try:
            async with self._database.writing() as session:
                await _lock(session, leftover.sha256)
                if not await _is_needed(session, leftover.sha256):
                    path = self.path(leftover.sha256)
                    with _explained():
                        await asyncio.to_thread(path.unlink, missing_ok=True)
                await session.execute(delete(Leftover).where(Leftover.id == leftover.id))
        except ServiceError as error:
            logger.warning("the bytes of %s are removed later: %s", leftover.sha256, error)

    async def sweep(self) -> None:
        """Remove what was left without a record by a service that was killed."""
        old = select(Leftover).where(Leftover.created_at < utc_now() - _SETTLED_AFTER)
        async with self._database.reading() as session:
            leftovers = (await session.scalars(old)).all()
        for leftover in leftovers:
            await self.clear(leftover)


class IncomingFile:
    """A file that is being written; its methods block."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        self._digest = hashlib.sha256()
        self._file = path.open("xb")

    @property
    def sha256(self) -> str:
        """Digest of what was written."""
        return self._digest.hexdigest()

    def write(self, chunk: bytes) -> None:
        """Add bytes."""
        self._file.write(chunk)
        self._digest.update(chunk)
        self.size_bytes += len(chunk)

    def seal(self) -> None:
        """Get everything on the disk, so that a power cut leaves no half file behind a record."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def discard(self) -> None:
        """Remove the file, unless it was renamed in the meantime."""
        with suppress(OSError):  # on a full disk, closing tries to write once more
            self._file.close()
        self.path.unlink(missing_ok=True)


async def _receive(incoming: IncomingFile, content: AsyncIterable[bytes], max_bytes: int) -> None:
    async for chunk in content:
        if incoming.size_bytes + len(chunk) > max_bytes:
            raise UploadTooLargeError(
                f"the file has more than {max_bytes} bytes, the most this service "
                "accepts; compress it with gzip or split it"
            )
        await asyncio.to_thread(incoming.write, chunk)
    await asyncio.to_thread(incoming.seal)


@contextmanager
def _explained() -> Iterator[None]:
    """Tell the storage's errors from those of the database, which also are OSErrors."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise StorageFullError(
                "there is no room for this file; remove old files on the server or enlarge its disk"
            ) from error
        logger.exception("the storage of uploaded files does not work")
        raise StorageUnavailableError(
            f"the storage of uploaded files does not work ({error.strerror or 'no reason given'}); "
            "try again, and tell the operator if it lasts"
        ) from error


async def _lock(session: AsyncSession, sha256: str) -> None:
    """Hold the bytes of a digest until the transaction ends."""
    await session.connection()  # begins the transaction, and so makes it SQLite's one writer
    if session.get_bind().dialect.name == "postgresql":
        key = int.from_bytes(bytes.fromhex(sha256[:16]), signed=True)
        await session.execute(select(func.pg_advisory_xact_lock(key)))


async def _is_needed(session: AsyncSession, sha256: str) -> bool:
    needs_bytes = UploadedFile.status != FileStatus.INVALID
    query = select(UploadedFile.id).where(UploadedFile.sha256 == sha256, needs_bytes)
    return await session.scalar(query.limit(1)) is not None


def _open(path: Path, size_bytes: int) -> BinaryIO | None:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    if os.fstat(file.fileno()).st_size == size_bytes:
        return file
    file.close()
    return None


def _put(source: Path, target: Path) -> None:
    source.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the record must not survive a power cut that the name does not
    finally:
        os.close(folder)

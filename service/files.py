"""Uploaded data sets: taken in, validated, looked up, and deleted when no job needs them."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterable, Collection, Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Self

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from jobs.tickets import FileRef
from service.audit import record
from service.callers import DEFAULT_PROJECT, Caller, visible_project
from service.contents import Contents, IncomingFile
from service.database import Database
from service.errors import (
    DataFileNotFoundError,
    DatasetInvalidError,
    FileContentGoneError,
    FileInUseError,
    FileNotReadyError,
    MissingFileError,
)
from service.file_states import FileStatus
from service.paging import newest_first
from service.row_check import Verdict
from service.row_checks import RowChecks
from service.states import JobStatus
from service.tables import Job, JobFile, UploadedFile, utc_now
from service.validation import Validation
from workers.specs import FILE_ID_PATTERN

_MAX_NAMED_JOBS = 3
_UNENDED = [status for status in JobStatus if not status.is_terminal]


@dataclass(frozen=True)
class UploadLimits:
    """What an upload may take."""

    max_bytes: int
    """Largest file that is accepted."""

    wait_s: float
    """How long an upload waits for its validation; one that takes longer is carried on."""


class Files:
    """The data sets of one database; those that `acting_for` answers are one caller's alone.

    Args:
        database: Where the records are.
        contents: Where the bytes are.
        checks: Reads the rows.
        validation: Carries on what takes long.
        limits: What an upload may take.
    """

    def __init__(
        self,
        database: Database,
        contents: Contents,
        checks: RowChecks,
        validation: Validation,
        limits: UploadLimits,
    ) -> None:
        self._database = database
        self._contents = contents
        self._checks = checks
        self._validation = validation
        self._limits = limits
        self._caller: Caller | None = None

    def acting_for(self, caller: Caller) -> Self:
        """The files as they are for a caller: others are not found, and changes are audited."""
        acting = copy(self)
        acting._caller = caller
        return acting

    async def add(self, filename: str, content: AsyncIterable[bytes]) -> UploadedFile:
        """Take in a data set; its record is `ready`, or `validating` if there are many rows.

        Args:
            filename: Its name on the user's machine; only ever shown.
            content: Its bytes as they arrive.

        Raises:
            UploadTooLargeError: If it is larger than accepted.
            DatasetInvalidError: If a row is not valid, or there is none; nothing is kept.
            StorageFullError: If the disk is full.
            StorageUnavailableError: If the disk refuses for another reason.
        """
        async with self._contents.receive(content, self._limits.max_bytes) as incoming:
            check = await self._checks.begin(incoming.path)
            try:
                await asyncio.wait({check}, timeout=self._limits.wait_s)
                file = self._new(filename, incoming)
                if check.done():
                    return await self._keep_valid(file, incoming, check.result())
                return await self._keep_unchecked(file, incoming, check)
            except BaseException:
                check.cancel()
                raise

    async def get(self, file_id: str) -> UploadedFile:
        """The record of a data set.

        Raises:
            DataFileNotFoundError: If there is none.
        """
        async with self._database.reading() as session:
            return await self._find(session, file_id)

    async def page(
        self, limit: int, after: str | None = None, status: FileStatus | None = None
    ) -> tuple[Sequence[UploadedFile], bool]:
        """Data sets, newest first, and whether there are more.

        Args:
            limit: Most records that are returned.
            after: Id of the last file of the page before.
            status: Files that stand there alone.

        Raises:
            DataFileNotFoundError: If `after` is no file.
        """
        last = await self.get(after) if after is not None else None
        query = newest_first(UploadedFile, limit, last)
        if (project := visible_project(self._caller)) is not None:
            query = query.where(UploadedFile.project == project)
        if status is not None:
            query = query.where(UploadedFile.status == status)
        async with self._database.reading() as session:
            files = (await session.scalars(query)).all()
        return files[:limit], len(files) > limit

    async def validating(self, file_ids: Collection[str]) -> set[str]:
        """Those of some files whose rows are still being validated."""
        query = select(UploadedFile.id).where(
            UploadedFile.id.in_(file_ids), UploadedFile.status == FileStatus.VALIDATING
        )
        async with self._database.reading() as session:
            return set((await session.scalars(query)).all()) if file_ids else set()

    async def open(self, file_id: str) -> tuple[UploadedFile, BinaryIO]:
        """The record of a data set and its bytes; close them.

        Raises:
            DataFileNotFoundError: If there is none.
            FileContentGoneError: If the bytes are no longer there.
            StorageUnavailableError: If the disk refuses.
        """
        file = await self.get(file_id)
        if file.status is FileStatus.INVALID:
            raise FileContentGoneError(
                f"{file.id} is not valid, and its bytes were not kept: {file.problem}"
            )
        content = await self._contents.open(file.sha256, file.size_bytes)
        if content is None:
            raise FileContentGoneError(_gone(file))
        return file, content

    async def delete(self, file_id: str) -> None:
        """Remove a data set, and its bytes if no other record shares them.

        Raises:
            DataFileNotFoundError: If there is none.
            FileInUseError: If a job that has not ended names it.
        """
        async with self._database.writing() as session:
            # A submission holds the row, too, so that one of the two comes first.
            file = await self._find(session, file_id, lock=True)
            await self._require_unused(session, file)
            await session.delete(file)
            record(session, self._caller, "file.delete", file.id, file.project)
            leftover = self._contents.condemn(session, file.sha256)
        await self._contents.clear(leftover)

    async def refs(self, file_ids: Iterable[str]) -> dict[str, FileRef]:
        """Where drivers find files.

        Raises:
            MissingFileError: If one is not valid, or its bytes are no longer there.
            FileNotReadyError: If one is still being validated.
        """
        return {file_id: await self._ref(await self.get(file_id)) for file_id in file_ids}

    def _new(self, filename: str, incoming: IncomingFile) -> UploadedFile:
        return UploadedFile(
            id=f"file-{secrets.token_hex(8)}",
            project=self._caller.project if self._caller else DEFAULT_PROJECT,
            filename=_display_name(filename),
            size_bytes=incoming.size_bytes,
            sha256=incoming.sha256,
            status=FileStatus.VALIDATING,
            created_at=utc_now(),
        )

    async def _keep_valid(
        self, file: UploadedFile, incoming: IncomingFile, verdict: Verdict
    ) -> UploadedFile:
        if verdict.problem is not None:
            raise DatasetInvalidError(verdict.problem, verdict.errors)
        file.status, file.num_rows = FileStatus.READY, verdict.num_rows
        await self._keep(file, incoming)
        return file

    async def _keep_unchecked(
        self, file: UploadedFile, incoming: IncomingFile, check: asyncio.Task[Verdict]
    ) -> UploadedFile:
        lease = self._validation.lease(file.id)
        await lease.acquire()
        await self._keep(file, incoming)
        self._validation.carry_on(file.id, lease, check)
        return file

    async def _keep(self, file: UploadedFile, incoming: IncomingFile) -> None:
        def note(session: AsyncSession) -> None:
            record(session, self._caller, "file.create", file.id, file.project)

        await self._contents.keep(incoming, file, note)

    async def _find(self, session: AsyncSession, file_id: str, lock: bool = False) -> UploadedFile:
        file = None
        if re.fullmatch(FILE_ID_PATTERN, file_id):  # PostgreSQL takes no NUL, not even to compare
            file = await session.get(UploadedFile, file_id, with_for_update=lock)
        if file is None or visible_project(self._caller) not in {None, file.project}:
            raise DataFileNotFoundError(f"there is no file {file_id!r}; GET /v1/files lists them")
        return file

    async def _require_unused(self, session: AsyncSession, file: UploadedFile) -> None:
        names_it = and_(
            Job.id.in_(select(JobFile.job_id).where(JobFile.file_id == file.id)),
            Job.status.in_(_UNENDED),
        )
        total = await session.scalar(select(func.count()).select_from(Job).where(names_it))
        if not total:
            return
        shown = select(Job.id).where(names_it, *self._visible_jobs())
        oldest = shown.order_by(Job.created_at, Job.id).limit(_MAX_NAMED_JOBS)
        named = (await session.scalars(oldest)).all()
        others = f"{total - len(named)} more" if named else f"{total} of another project"
        jobs = ", ".join([*named, *([others] if total > len(named) else [])])
        raise FileInUseError(
            f"{file.id} is in use by jobs that have not ended: {jobs}; wait for their end, or "
            "cancel them, and delete it then"
        )

    def _visible_jobs(self) -> list[ColumnElement[bool]]:
        project = visible_project(self._caller)
        return [] if project is None else [Job.project == project]

    async def _ref(self, file: UploadedFile) -> FileRef:
        if file.status is FileStatus.INVALID:
            raise MissingFileError(
                f"{file.id} ({file.filename}) is not valid: {file.problem}; correct it, upload it "
                "again and submit a new job"
            )
        if file.num_rows is None:
            raise FileNotReadyError(
                f"the rows of {file.id} are still being validated; try again once GET "
                f"/v1/files/{file.id} answers that it is ready"
            )
        path = self._contents.path(file.sha256)
        if await asyncio.to_thread(_size_of, path) != file.size_bytes:
            raise MissingFileError(f"{_gone(file)} and submit a new job")
        return FileRef(uri=str(path), sha256=file.sha256, num_rows=file.num_rows)


def _gone(file: UploadedFile) -> str:
    return (
        f"{file.id} is no longer in the storage of uploaded files, or is damaged; upload it again"
    )


def _size_of(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _display_name(filename: str) -> str:
    name = PurePosixPath(filename.replace("\\", "/")).name
    shown = "".join(char for char in name if char.isprintable())[:255]
    return shown if shown.strip(". ") else "rows.jsonl"  # a name of dots alone is a folder

"""The files that MLflow keeps with a job's run: a list of all, and each of them."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager, aclosing
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from service.boundaries import Artifact, Runs
from service.callers import Caller
from service.errors import (
    ArtifactNotFoundError,
    FieldError,
    MlflowUnavailableError,
    RefusedError,
    RequestInvalidError,
    RunNotFoundError,
    StorageFullError,
)
from service.lifecycle import Jobs
from service.tables import Job
from service.turns import Turns

_TIMEOUT_S = 60.0
"""Time to list files: MLflow is asked for one folder after another."""


@dataclass(frozen=True)
class Lent:
    """A file that lies on this machine's disk until its lease is left."""

    path: Path
    lease: AbstractContextManager[object]


class Artifacts:
    """The artifacts of every job.

    Args:
        jobs: Knows the jobs.
        runs: Has the artifacts.
    """

    def __init__(self, jobs: Jobs, runs: Runs) -> None:
        self._jobs = jobs
        self._runs = runs
        self._turns = Turns()

    def acting_for(self, caller: Caller) -> Self:
        """The artifacts as they are for a caller: those of others' jobs are not found."""
        acting = copy(self)
        acting._jobs = self._jobs.acting_for(caller)
        return acting

    async def page(
        self, job_id: str, limit: int, after: str | None = None
    ) -> tuple[Sequence[Artifact], bool]:
        """Files of all folders in the order of their paths, and whether there are more.

        Args:
            job_id: The job; one that has not begun has none.
            limit: Most files that are returned.
            after: Path of the last one of the page before.

        Raises:
            JobNotFoundError: If there is no such job.
            MlflowUnavailableError: If MLflow does not answer, or not soon enough.
            RunNotFoundError: If someone has deleted the job's run.
        """
        job = await self._jobs.get(job_id)
        if job.run_id is None:
            return [], False
        await self._require_run(job, job.run_id)
        found: list[Artifact] = []
        known = tuple(after.split("/")) if after else ()
        try:
            async with asyncio.timeout(_TIMEOUT_S), aclosing(self._walk(job.run_id, known)) as walk:
                async for artifact in walk:
                    found.append(artifact)
                    if len(found) > limit:
                        break
        except TimeoutError:
            raise MlflowUnavailableError(
                f"MLflow took more than {_TIMEOUT_S:.0f} s to list the files; ask for a smaller "
                "`limit`"
            ) from None
        return found[:limit], len(found) > limit

    async def fetch(self, job_id: str, path: str) -> Lent:
        """One of the files that are listed; it passes over the disk, not through memory.

        Raises:
            ArtifactNotFoundError: If the job's run has no such file.
            JobNotFoundError: If there is no such job.
            MlflowUnavailableError: If MLflow does not answer.
            RequestInvalidError: If the path could lead out of the run's files.
            RunNotFoundError: If someone has deleted the job's run.
            StorageFullError: If this machine has no room for the file.
        """
        job = await self._jobs.get(job_id)
        require_plain(path)
        if job.run_id is None:
            raise ArtifactNotFoundError(f"{job_id} has not begun and has no files")
        await self._require_run(job, job.run_id)
        entries = await self._entries(job.run_id, path.rpartition("/")[0])
        files = {entry.path: entry for entry in entries if not entry.is_folder}
        if path not in files:
            raise ArtifactNotFoundError(
                f"{job_id} has no file {path!r}; GET /v1/jobs/{job_id}/artifacts lists them"
            )
        async with self._turns.taken():
            return await self._download(job.run_id, files[path])

    async def _download(self, run_id: str, artifact: Artifact) -> Lent:
        folder = tempfile.TemporaryDirectory(prefix="hyplora-artifact-")
        try:
            free = shutil.disk_usage(folder.name).free
            if artifact.size_bytes > free:
                raise StorageFullError(
                    f"{artifact.path} has {artifact.size_bytes:,} bytes, and where the service "
                    f"puts it for the moment are {free:,} free; make room there, or set TMPDIR of "
                    "the service to a larger disk"
                )
            path = await self._runs.download(run_id, artifact.path, Path(folder.name))
        except BaseException:
            folder.cleanup()
            raise
        return Lent(path, folder)

    async def _require_run(self, job: Job, run_id: str) -> None:
        if await self._runs.read(run_id) is None:
            raise RunNotFoundError(f"someone has deleted the MLflow run {run_id} of {job.id}")

    async def _walk(
        self, run_id: str, after: tuple[str, ...], folder: str = ""
    ) -> AsyncGenerator[Artifact]:
        """The files of a folder and of those in it, behind a path that is known already."""
        for entry in sorted(await self._entries(run_id, folder), key=lambda each: each.name):
            parts = tuple(entry.path.split("/"))
            if not entry.is_folder:
                if parts > after:
                    yield entry
            elif parts >= after[: len(parts)]:
                async with aclosing(self._walk(run_id, after, entry.path)) as inner:
                    async for artifact in inner:
                        yield artifact

    async def _entries(self, run_id: str, folder: str) -> Sequence[Artifact]:
        try:
            return await self._runs.entries(run_id, folder)
        except RefusedError:  # there is nothing of this name that has entries
            return []


def require_plain(path: str) -> None:
    """Refuse a path that is not simply names with slashes between them.

    Raises:
        RequestInvalidError: If it is not.
    """
    names = path.split("/")
    if any(name in {"", ".", ".."} for name in names) or any(char in path for char in "\\%\0:"):
        message = "name a file as the list does: no empty part, `.`, `..`, `\\`, `%` or `:`"
        raise RequestInvalidError(
            f"file_path: {message}",
            [FieldError(field="file_path", value=path[:200], message=message)],
        )

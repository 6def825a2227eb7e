"""Runs the check of data sets beside the service: small ones in a thread, others in a process."""

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import BinaryIO

import service
from service.row_check import Verdict, check_rows
from workers.rows import GZIP_MAGIC, PARQUET_MAGIC

logger = logging.getLogger(__name__)

_LIGHT_BYTES = 64 * 1024
"""Text that a thread reads in some ten milliseconds, where a process takes half a second to
start. Reading holds the interpreter's lock, for which every request would wait in turn."""

_GZIP_RATIO = 1032
"""Most bytes that DEFLATE makes of one: https://zlib.net/zlib_tech.html."""

_INHERITED = ("PATH", "LD_LIBRARY_PATH")


class RowChecks:
    """A bounded number of checks at a time, in this process's children.

    Args:
        max_processes: How many there are at most; others wait.
    """

    def __init__(self, max_processes: int) -> None:
        self.max_processes = max_processes
        self._places = asyncio.Semaphore(max_processes)

    async def begin(self, path: Path) -> asyncio.Task[Verdict]:
        """Begin to check a file, which may be renamed or removed from then on.

        Raises:
            OSError: If it cannot be opened.
        """
        file = await asyncio.to_thread(path.open, "rb")
        task = asyncio.create_task(self._check(file), name=f"check of {path.name}")
        task.add_done_callback(lambda _: file.close())
        return task

    async def _check(self, file: BinaryIO) -> Verdict:
        if await asyncio.to_thread(_is_light, file):
            return await asyncio.to_thread(check_rows, file)
        async with self._places:
            return await _check_in_process(file)


def _is_light(file: BinaryIO) -> bool:
    """Whether a file cannot hold more than some text; what Parquet holds does not show."""
    size_bytes = os.fstat(file.fileno()).st_size
    magic = os.pread(file.fileno(), len(PARQUET_MAGIC), 0)
    if magic == PARQUET_MAGIC:
        return False
    ratio = _GZIP_RATIO if magic.startswith(GZIP_MAGIC) else 1
    return size_bytes * ratio <= _LIGHT_BYTES


async def _check_in_process(file: BinaryIO) -> Verdict:
    descriptor = file.fileno()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "service.row_check",
        str(descriptor),
        pass_fds=[descriptor],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=_environment(),
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        output = await process.stdout.read()
        exit_code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        process.stdin.close()
    if exit_code == 0:
        return Verdict.model_validate_json(output)
    how = f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
    logger.error("the check of a data set ended by %s", how)
    return Verdict(
        problem=f"its rows could not be read to the end: the check was ended by {how}, most often "
        "because memory ran out; upload it again, in smaller files or row groups"
    )


def _environment() -> dict[str, str]:
    """What the child needs to run this very code: no secret of the service."""
    root = str(Path(next(iter(service.__path__))).parent)
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return inherited | {"PYTHONPATH": root}

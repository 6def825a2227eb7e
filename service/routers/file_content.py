"""The bytes of a data set as an answer: the whole, or the part that a `Range` asks for."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import BinaryIO
from urllib.parse import quote

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from service.errors import RangeNotSatisfiableError
from service.tables import UploadedFile

_CHUNK_BYTES = 256 * 1024
_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")


class FileContent(StreamingResponse):
    """Sends an open file and closes it.

    Args:
        file: The record.
        content: The bytes, whose length is that of the record.
        asked_range: Header of the request; several ranges, or no range at all, are ignored.
        if_range: Header of the request: the range is meant for this ETag alone.

    Raises:
        RangeNotSatisfiableError: If the file ends before the range begins.
    """

    def __init__(
        self,
        file: UploadedFile,
        content: BinaryIO,
        asked_range: str | None,
        if_range: str | None,
    ) -> None:
        self._content = content
        etag = f'"{file.sha256}"'
        part = None
        if asked_range is not None and if_range in {None, etag}:
            part = _part(asked_range, file.size_bytes)
        begin, end = part or (0, file.size_bytes)
        headers = {
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(file.filename, safe='')}",
            "Content-Length": str(end - begin),
            "X-Content-Type-Options": "nosniff",
            "Accept-Ranges": "bytes",
            "ETag": etag,
        }
        if part is not None:
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{file.size_bytes}"
        super().__init__(
            _pieces(content, begin, end),
            status_code=200 if part is None else 206,
            headers=headers,
            media_type="application/octet-stream",
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._content.close()


def _part(asked: str, size_bytes: int) -> tuple[int, int] | None:
    """Where the part begins and ends; None if the whole is to be sent."""
    match = _RANGE.fullmatch(asked.strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        begin, end = max(0, size_bytes - int(last)), size_bytes
    else:
        begin, end = int(first), min(int(last) + 1, size_bytes) if last else size_bytes
        if last and int(last) < begin:
            return None
    if begin >= size_bytes:
        raise RangeNotSatisfiableError(
            f"the file has {size_bytes} bytes, and the range {asked} begins after them", size_bytes
        )
    return begin, end


async def _pieces(content: BinaryIO, begin: int, end: int) -> AsyncIterator[bytes]:
    await asyncio.to_thread(content.seek, begin)
    while begin < end:
        piece = await asyncio.to_thread(content.read, min(_CHUNK_BYTES, end - begin))
        if not piece:
            raise OSError("the file became shorter while it was sent")
        begin += len(piece)
        yield piece

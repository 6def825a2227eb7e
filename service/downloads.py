"""Files that are handed out: what they are said to be, and how they are kept from doing harm."""

from contextlib import AbstractContextManager
from pathlib import Path

from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send

_KINDS = {
    "csv": "text/csv; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "jinja": "text/plain; charset=utf-8",
    "json": "application/json",
    "jsonl": "application/jsonl",
    "log": "text/plain; charset=utf-8",
    "md": "text/markdown; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "png": "image/png",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
    "yaml": "application/yaml",
}
_ANYTHING = "application/octet-stream"
MEDIA_TYPES = (*dict.fromkeys(kind.partition(";")[0] for kind in _KINDS.values()), _ANYTHING)
"""What files can be said to be."""

HARMLESS_HEADERS = {
    # A page among the files must not act as one of the service's, wherever it is opened.
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
}


def media_type(name: str) -> str:
    """What a file is, by the end of its name."""
    return _KINDS.get(name.rpartition(".")[2], _ANYTHING)


class LentFileResponse(FileResponse):
    """A file that is sent piece by piece, as an attachment, and then let go of.

    Args:
        path: The file.
        lease: Left when the answer has ended, however it did.
    """

    def __init__(self, path: Path, lease: AbstractContextManager[object]) -> None:
        super().__init__(
            path, media_type=media_type(path.name), filename=path.name, headers=HARMLESS_HEADERS
        )
        self.headers["Accept-Ranges"] = "none"
        self._lease = lease

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, as a whole whatever range is asked for."""
        ranges = {b"range", b"if-range"}
        headers = [header for header in scope["headers"] if header[0] not in ranges]
        with self._lease:
            await super().__call__(dict(scope, headers=headers), receive, send)

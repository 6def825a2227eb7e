"""A multipart/form-data upload, read as it arrives: nothing is buffered, on disk or in memory.

FastAPI's own form parsing copies a body to the temporary folder before the request is looked at,
even before its token is.
"""

from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import FieldError, UploadMalformedError

_FILE, _PURPOSE, _EXPIRY = b"file", b"purpose", b"expires_after"
_ACCEPTED_PURPOSE = b"fine-tune"
_MAX_FIELD_BYTES = 1024
_HOW_TO = 'send multipart/form-data with one file part, as curl -F "file=@rows.jsonl" does'


class Upload:
    """The body of one request; call `open` first, then iterate over `content` once.

    Args:
        content_type: The request's header, which holds the boundary.
        body: The body as it arrives.
    """

    def __init__(self, content_type: str | None, body: AsyncIterable[bytes]) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise UploadMalformedError(f"the body is no multipart/form-data; {_HOW_TO}")
        self._pieces = _read_pieces(options[b"boundary"], body)
        self._purpose = b""

    async def open(self) -> str:
        """Read up to the file part and return the name of the file.

        Raises:
            UploadMalformedError: If the body is broken or has no file part.
        """
        async for piece in self._pieces:
            if piece.starts_file:
                return piece.filename
            self._read_field(piece)
        raise UploadMalformedError(f"the body has no part named file; {_HOW_TO}")

    async def content(self) -> AsyncIterator[bytes]:
        """Yield the file's bytes, then read the body to its end.

        Raises:
            UploadMalformedError: If the body is broken, holds two files, names a purpose other
                than fine-tune, or a time at which the file expires.
        """
        async for piece in self._pieces:
            if piece.starts_file:
                raise UploadMalformedError(f"the body has more than one file; {_HOW_TO}")
            if piece.part == _FILE:
                yield piece.data
            else:
                self._read_field(piece)
        if self._purpose not in {b"", _ACCEPTED_PURPOSE}:
            raise _refused(_PURPOSE, "must be fine-tune, or be left out")

    def _read_field(self, piece: "_Piece") -> None:
        if piece.part.startswith(_EXPIRY):
            raise _refused(
                _EXPIRY, "files do not expire here; delete them once they are not needed"
            )
        if piece.part == _PURPOSE:
            self._purpose += piece.data
            if len(self._purpose) > _MAX_FIELD_BYTES:
                raise _refused(_PURPOSE, "must be fine-tune, or be left out")


def _refused(part: bytes, message: str) -> UploadMalformedError:
    field = part.decode()
    return UploadMalformedError(f"{field} {message}", [FieldError(field=field, message=message)])


@dataclass(frozen=True)
class _Piece:
    """Some bytes of a part, or, with `starts_file`, the beginning of a file part."""

    part: bytes
    data: bytes = b""
    starts_file: bool = False
    filename: str = ""


@dataclass
class _Collector:
    """Gathers what the parser calls back with while it is fed one chunk."""

    pieces: list[_Piece] = field(default_factory=list)
    is_complete: bool = False
    _part: bytes = b""
    _header: bytes = b""
    _value: bytes = b""
    _disposition: str = ""

    def on_part_begin(self) -> None:
        self._header, self._value, self._disposition = b"", b"", ""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value.decode("latin-1")
        self._header, self._value = b"", b""

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._part = options.get(b"name", b"")
        if self._part == _FILE:
            filename = options.get(b"filename", b"").decode(errors="replace")
            self.pieces.append(_Piece(_FILE, starts_file=True, filename=filename))

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.pieces.append(_Piece(self._part, data[start:end]))

    def on_end(self) -> None:
        self.is_complete = True


async def _read_pieces(boundary: bytes, body: AsyncIterable[bytes]) -> AsyncIterator[_Piece]:
    collector = _Collector()
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": collector.on_part_begin,
                "on_header_field": collector.on_header_field,
                "on_header_value": collector.on_header_value,
                "on_header_end": collector.on_header_end,
                "on_headers_finished": collector.on_headers_finished,
                "on_part_data": collector.on_part_data,
                "on_end": collector.on_end,
            },
        )
        async for chunk in body:
            parser.write(chunk)
            for piece in collector.pieces:
                yield piece
            collector.pieces.clear()
    except FormParserError as error:
        raise UploadMalformedError(f"the body is broken ({error}); {_HOW_TO}") from error
    if not collector.is_complete:
        raise UploadMalformedError(f"the body ends in the middle of a part; {_HOW_TO}")

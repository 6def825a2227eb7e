"""Instruction rows in JSON-lines files: what a row must hold, and reading it line by line.

Torch-free: the control plane validates uploads with the same code that the workers read with.
"""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

MAX_LINE_BYTES = 1 << 20
"""Longest line in bytes, newline included; bounds memory also for a gzip bomb."""

GZIP_MAGIC = b"\x1f\x8b"
UTF8_BOM = b"\xef\xbb\xbf"


class InstructionRow(BaseModel):
    """One training or evaluation example; further fields of a row are ignored."""

    model_config = ConfigDict(
        extra="ignore", frozen=True, strict=True, use_attribute_docstrings=True
    )

    instruction: str = Field(min_length=1)
    """What the user asks."""

    input: str = ""
    """Context of the instruction; shown after it, one blank line between."""

    output: str = Field(min_length=1)
    """The answer to learn."""

    @field_validator("instruction", "output")
    @classmethod
    def _says_something(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("holds white space only")
        return text

    @field_validator("instruction", "input", "output")
    @classmethod
    def _has_no_nul(cls, text: str) -> str:
        if "\0" in text:
            raise ValueError("holds a NUL character (\\u0000)")
        return text


class RowError(ValueError):
    """A line is no valid row.

    Args:
        line: Number of the line, from 1.
        field: Field of the row, or None where the line as a whole is at fault.
        problem: What was given and what to do.
    """

    def __init__(self, line: int, field: str | None, problem: str) -> None:
        super().__init__(line, field, problem)
        self.line = line
        self.field = field
        self.problem = problem

    def __str__(self) -> str:
        where = f"line {self.line}" if self.field is None else f"line {self.line}, {self.field}"
        return f"{where}: {self.problem}"


def iter_rows(path: Path) -> Iterator[InstructionRow]:
    """Read the rows of a JSON-lines file, plain or gzip; blank lines are skipped.

    Raises:
        RowError: At the first line that is no valid row, or if the file has no row.
        OSError: If the file cannot be opened.
    """
    return (row for _, row in iter_numbered_rows(path))


def iter_numbered_rows(path: Path) -> Iterator[tuple[int, InstructionRow]]:
    """As `iter_rows`, each row with the number of its line from 1."""
    num_rows = 0
    for number, line in _iter_lines(path):
        if line.strip():
            num_rows += 1
            yield number, parse_row(_decode(line, number), number)
    if num_rows == 0:
        raise RowError(
            1,
            None,
            'the file has no row; give one JSON object a line, with "instruction", "output"',
        )


def parse_row(text: str, line: int) -> InstructionRow:
    """Validate one line.

    Raises:
        RowError: If it is no JSON object with the fields of `InstructionRow`.
    """
    try:
        return InstructionRow.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise RowError(line, *_explain(first["type"], first["loc"], first["msg"])) from None


def _explain(kind: str, location: tuple[int | str, ...], message: str) -> tuple[str | None, str]:
    """Field and problem for pydantic's first complaint about a row."""
    field = str(location[0]) if location else None
    match kind:
        case "json_invalid":
            reason = message.removeprefix("Invalid JSON: ").replace("at line 1 column", "at column")
            return None, f"is no JSON: {reason}; write one JSON object a line"
        case "model_type":
            return None, 'is no JSON object; write {"instruction": "…", "output": "…"}'
        case "missing":
            return field, "is missing; every row needs instruction and output"
        case "string_too_short":
            return field, "is empty; write some text or leave the row out"
        case "string_type":
            return field, "is not text; put the value in double quotes"
        case _:
            return (
                field,
                f"{message.removeprefix('Value error, ')}; correct it or leave the row out",
            )


def _iter_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        is_gzip = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        file.seek(0)
        if not is_gzip:
            yield from _iter_bounded_lines(file)
            return
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield from _iter_bounded_lines(unpacked)


def _iter_bounded_lines(file: BinaryIO | gzip.GzipFile) -> Iterator[tuple[int, bytes]]:
    number = 0
    while True:
        number += 1
        try:
            line = file.readline(MAX_LINE_BYTES + 1)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise RowError(
                number, None, f"the gzip data is damaged ({error}); compress the file again"
            ) from error
        if not line:
            return
        if len(line) > MAX_LINE_BYTES:
            raise RowError(
                number, None, f"is longer than {MAX_LINE_BYTES} bytes; split or shorten the row"
            )
        yield number, line.removeprefix(UTF8_BOM) if number == 1 else line


def _decode(line: bytes, number: int) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise RowError(
            number,
            None,
            f"is not UTF-8 (byte {line[error.start]: #04x} at position {error.start}); "
            "save the file as UTF-8",
        ) from error

"""Rows of training data: the three forms they come in, and reading them one by one.

    {"instruction": "Add.", "input": "2 + 2", "output": "4"}
    {"messages": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]}
    {"prompt": "2 + 2 =", "completion": " 4"}

Each is a conversation: turns, some of which are answers to learn. Files are JSON lines, plain or
gzip, or Parquet. Torch-free: the control plane validates uploads with the same code that the
workers read with.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, BinaryIO, ClassVar, Literal

import pydantic_core
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    model_validator,
)

MAX_LINE_BYTES = 1 << 20
"""Longest line in bytes, newline included; bounds memory also for a gzip bomb.

A row of a Parquet file may be as long, written as JSON.
"""

MAX_GZIP_RATIO = 200
"""Most bytes that one of gzip may stand for, beyond the first `GZIP_FREE_BYTES`; text needs ten."""

GZIP_FREE_BYTES = 4 << 20
"""Unpacked bytes that are read whatever they were packed to."""

GZIP_MAGIC = b"\x1f\x8b"
PARQUET_MAGIC = b"PAR1"
UTF8_BOM = b"\xef\xbb\xbf"


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL character (\\u0000)")
    return text


def _saying_something(text: str) -> str:
    if not text.strip():
        raise ValueError("holds white space only")
    return text


Text = Annotated[str, AfterValidator(_without_nul)]
SomeText = Annotated[
    str, Field(min_length=1), AfterValidator(_without_nul), AfterValidator(_saying_something)
]


class _RowModel(BaseModel):
    """Base of the forms of a row; further fields of a row are ignored."""

    model_config = ConfigDict(
        extra="ignore", frozen=True, strict=True, use_attribute_docstrings=True
    )


class Turn(_RowModel):
    """What one side of a conversation says."""

    role: Literal["system", "user", "assistant"]
    """Who speaks; the assistant's turns are the answers."""

    content: Text
    """The text."""

    weight: Literal[0, 1] | None = None
    """0 for an answer that is shown and not learned."""

    @property
    def is_learned(self) -> bool:
        """Whether this turn is an answer to learn."""
        return self.role == "assistant" and self.weight != 0


class InstructionRow(_RowModel):
    """An instruction with its answer."""

    instruction: SomeText
    """What the user asks."""

    input: Text = ""
    """Context of the instruction; shown after it, one blank line between."""

    output: SomeText
    """The answer to learn."""

    @property
    def turns(self) -> list[Turn]:
        """The row as a conversation."""
        question = f"{self.instruction}\n\n{self.input}" if self.input else self.instruction
        return _question_and_answer(question, self.output)


class CompletionRow(_RowModel):
    """A prompt with its completion."""

    prompt: SomeText
    """What the model reads."""

    completion: SomeText
    """What it is to go on with."""

    @property
    def turns(self) -> list[Turn]:
        """The row as a conversation."""
        return _question_and_answer(self.prompt, self.completion)


class ChatRow(_RowModel):
    """A conversation of any length."""

    messages: list[Turn] = Field(min_length=1)
    """The turns in their order."""

    @property
    def turns(self) -> list[Turn]:
        """The row as a conversation."""
        return self.messages

    @model_validator(mode="after")
    def _has_an_answer_at_its_end(self) -> ChatRow:
        if self.messages[-1].role != "assistant":
            raise ValueError(
                f"ends with a turn of the {self.messages[-1].role}; end with the assistant's answer"
            )
        if not any(turn.is_learned for turn in self.messages):
            raise ValueError("has weight 0 on every answer; leave the row out or learn one of them")
        if any(turn.role == "system" for turn in self.messages[1:]):
            raise ValueError("has a system turn that is not the first; move its text to the first")
        return self


def _question_and_answer(question: str, answer: str) -> list[Turn]:
    return [Turn(role="user", content=question), Turn(role="assistant", content=answer)]


def _form_of(fields: object) -> str:
    """Which form a row is meant to have."""
    keys = fields.keys() if isinstance(fields, dict) else ()
    if "messages" in keys:
        return "chat"
    is_completion = "instruction" not in keys and ("prompt" in keys or "completion" in keys)
    return "completion" if is_completion else "instruction"


Row = Annotated[
    Annotated[InstructionRow, Tag("instruction")]
    | Annotated[CompletionRow, Tag("completion")]
    | Annotated[ChatRow, Tag("chat")],
    Discriminator(_form_of),
]
"""One training or evaluation example, in any of its forms."""

_ROW: TypeAdapter[InstructionRow | CompletionRow | ChatRow] = TypeAdapter(Row)

Columns = Mapping[str, str]
"""Field of a row to the name it has in a file."""

RowParser = Callable[[str, int, Columns | None], InstructionRow | CompletionRow | ChatRow]
"""Validates a line, told its number and the columns, or raises RowError."""


class RowError(ValueError):
    """A row is not valid.

    Args:
        line: Number of the line, or of the row in a Parquet file, from 1.
        field: Field of the row, or None where the row as a whole is at fault.
        problem: What was given and what to do.
    """

    unit: ClassVar = "line"

    def __init__(self, line: int, field: str | None, problem: str) -> None:
        super().__init__(line, field, problem)
        self.line = line
        self.field = field
        self.problem = problem

    def __str__(self) -> str:
        where = f"{self.unit} {self.line}"
        return f"{where if self.field is None else f'{where}, {self.field}'}: {self.problem}"


class TableRowError(RowError):
    """A row of a table is not valid: one of a Parquet file or of a hub data set."""

    unit = "row"


def iter_rows(path: Path, parse: RowParser | None = None) -> Iterator[Row]:
    """Read the rows of a file; blank lines are skipped.

    Args:
        path: As `iter_numbered_rows` reads it.
        parse: Reads a line, which Parquet has none of; by default `parse_row`.

    Raises:
        RowError: At the first row that is not valid, or if the file has no row.
        OSError: If the file cannot be opened.
    """
    with path.open("rb") as file:
        for _, row in iter_numbered_rows(file, parse=parse):
            yield row


def iter_numbered_rows(
    file: BinaryIO, columns: Columns | None = None, parse: RowParser | None = None
) -> Iterator[tuple[int, Row]]:
    """Read rows, each with the number of its line, or in Parquet of its row, from 1.

    Args:
        file: JSON lines, plain or gzip, or Parquet, open for reading at any place of it.
        columns: Names that fields have in the file, where they are others.
        parse: Reads a line, which Parquet has none of; by default `parse_row`.

    Raises:
        RowError: At the first row that is not valid, or if the file has no row.
    """
    if _magic(file) == PARQUET_MAGIC:
        from workers.parquet import iter_parquet  # pyarrow takes a moment to import

        yield from numbered(iter_parquet(file, columns or {}), columns or {})
        return
    for number, text in iter_numbered_lines(file):
        yield number, (parse or parse_row)(text, number, columns)


def iter_numbered_lines(file: BinaryIO) -> Iterator[tuple[int, str]]:
    """Read the lines that are not blank, each with its number from 1.

    Args:
        file: JSON lines, plain or gzip, open for reading at any place of it.

    Raises:
        RowError: At a line that is too long or no UTF-8, or if there is none.
    """
    magic = _magic(file)
    if magic == PARQUET_MAGIC:
        raise RowError(1, None, "the file is Parquet; write one JSON object a line")
    num_rows = 0
    for number, line in _iter_lines(file, is_gzip=magic.startswith(GZIP_MAGIC)):
        if line.strip():
            num_rows += 1
            yield number, _decode(line, number)
    _require_some(num_rows)


def numbered(
    rows: Iterator[Mapping[str, Any]], columns: Columns
) -> Iterator[tuple[int, InstructionRow | CompletionRow | ChatRow]]:
    """Validate the rows of a table, where an absent field is null, each with its number from 1.

    Raises:
        TableRowError: At the first row that is not valid.
        RowError: If there is no row.
    """
    number = 0
    for number, fields in enumerate(rows, start=1):
        given = {name: value for name, value in fields.items() if value is not None}
        try:
            row = validate_row(given, number, columns)
        except RowError as error:
            raise TableRowError(error.line, error.field, error.problem) from None
        yield number, row
    _require_some(number)


def parse_row(
    text: str, line: int, columns: Columns | None = None
) -> InstructionRow | CompletionRow | ChatRow:
    """Validate one line.

    Raises:
        RowError: If it is no JSON object with the fields of one of the forms of a row.
    """
    if columns:
        try:
            fields = pydantic_core.from_json(text)
        except ValueError as error:
            raise RowError(line, *_explain("json_invalid", (), str(error))) from None
        return validate_row(fields, line, columns)
    try:
        return _ROW.validate_json(text)
    except ValidationError as error:
        raise _row_error(error, line) from None


def validate_row(
    fields: object, number: int, columns: Columns | None = None
) -> InstructionRow | CompletionRow | ChatRow:
    """Validate a row as JSON has it.

    Raises:
        RowError: If it has not the fields of one of the forms of a row.
    """
    if isinstance(fields, dict) and columns:
        if missing := sorted(set(columns.values()) - fields.keys()):
            raise RowError(
                number,
                missing[0],
                f"is missing, and data.columns names it; the row has {', '.join(map(str, fields))}",
            )
        fields = fields | {field: fields[name] for field, name in columns.items()}
    try:
        return _ROW.validate_python(fields)
    except ValidationError as error:
        raise _row_error(error, number) from None


def _row_error(error: ValidationError, number: int) -> RowError:
    """Pydantic's first complaint about a row."""
    first = error.errors(include_url=False, include_context=False)[0]
    _, *location = first["loc"] or ("",)  # the form's tag leads
    is_question = first["type"] == "missing" and "answer" in first["input"]
    if is_question and location in (["output"], ["completion"]):
        problem = "is missing; a row with its answer alone can be evaluated on, not trained on"
        return RowError(number, str(location[0]), problem)
    return RowError(number, *_explain(first["type"], tuple(location), first["msg"]))


def _explain(kind: str, location: tuple[int | str, ...], message: str) -> tuple[str | None, str]:
    """Field and problem for one of pydantic's complaints."""
    field = "".join(f"[{at}]" if isinstance(at, int) else f".{at}" for at in location)[1:] or None
    match kind:
        case "json_invalid":
            reason = message.removeprefix("Invalid JSON: ").replace("at line 1 column", "at column")
            return None, f"is no JSON: {reason}; write one JSON object a line"
        case "model_type" | "model_attributes_type" if field is None:
            return None, 'is no JSON object; write {"instruction": "…", "output": "…"}'
        case "missing":
            return field, (
                "is missing; a row has instruction and output, prompt and completion, or messages"
            )
        case "string_too_short":
            return field, "is empty; write some text or leave the row out"
        case "string_type":
            return field, "is not text; put the value in double quotes"
        case _:
            return (
                field,
                f"{message.removeprefix('Value error, ')}; correct it or leave the row out",
            )


def _require_some(num_rows: int) -> None:
    if num_rows == 0:
        raise RowError(
            1,
            None,
            'the file has no row; give one JSON object a line, with "instruction", "output"',
        )


def _magic(file: BinaryIO) -> bytes:
    """The first bytes, which tell the form; leaves the file at its beginning."""
    file.seek(0)
    magic = file.read(len(PARQUET_MAGIC))
    file.seek(0)
    return magic


def _iter_lines(file: BinaryIO, *, is_gzip: bool) -> Iterator[tuple[int, bytes]]:
    if not is_gzip:
        yield from _iter_bounded_lines(file)
        return
    num_bytes, most_bytes = 0, GZIP_FREE_BYTES
    with gzip.GzipFile(fileobj=file) as unpacked:
        for number, line in _iter_bounded_lines(unpacked):
            num_bytes += len(line)
            if num_bytes <= most_bytes:
                yield number, line
                continue
            most_bytes = GZIP_FREE_BYTES + MAX_GZIP_RATIO * file.tell()
            if num_bytes > most_bytes:
                raise RowError(
                    number,
                    None,
                    f"the gzip data unpacks to more than {MAX_GZIP_RATIO} times its size; send "
                    "rows that repeat each other less often, or without compression",
                )
            yield number, line


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

"""Reading the rows that a job names, from wherever they lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from workers.errors import DataInvalidError, ReferenceNotAllowedError
from workers.hub_rows import iter_hub_rows
from workers.reach import reach_of_this_process
from workers.rows import (
    Columns,
    RowError,
    RowParser,
    TableRowError,
    iter_numbered_rows,
    numbered,
)
from workers.specs import HubDatasetSpec

if TYPE_CHECKING:
    from workers.rows import Row
    from workers.tasks.task import Question, Task

_Read = TypeVar("_Read")

NumberedRow = tuple[int, "Row"]
"""A row with the number of its line, from 1."""


def read_rows(
    source: str | HubDatasetSpec,
    *,
    name: str,
    files: Mapping[str, Path] | None = None,
    columns: Columns | None = None,
    parse: RowParser | None = None,
) -> list[NumberedRow]:
    """Read and validate all rows of a source.

    Args:
        source: The id of an uploaded file, a URL or a data set of the Hugging Face hub.
        name: The field of the spec that names it, for messages.
        files: Where uploaded files lie, by id.
        columns: Names that fields have in the source, where they are others.
        parse: Reads a line of a file; by default as a row to train on.

    Raises:
        DataInvalidError: If the source or one of its rows cannot be read.
        ReferenceNotAllowedError: If jobs may not read the source.
    """
    try:
        if isinstance(source, HubDatasetSpec):
            return list(numbered(iter_hub_rows(source, name), columns or {}))
        read = partial(iter_numbered_rows, columns=columns, parse=parse)
        return _read_url(_url_of(source, name, files), name, read)
    except RowError as error:
        raise DataInvalidError(f"{name}, {error}") from error


def read_questions(
    task: Task,
    source: str | HubDatasetSpec,
    *,
    name: str,
    files: Mapping[str, Path] | None = None,
    max_rows: int | None = None,
) -> list[Question]:
    """Read and validate the rows of a source as a task's questions.

    Args:
        task: Reads the rows.
        source: The id of an uploaded file, a URL or a data set of the Hugging Face hub.
        name: What names the source in messages.
        files: Where uploaded files lie, by id.
        max_rows: Most rows that are read, the first ones; by default all.

    Raises:
        DataInvalidError: If the source or one of its rows cannot be read.
        ReferenceNotAllowedError: If jobs may not read the source.
    """
    try:
        if isinstance(source, HubDatasetSpec):
            rows = islice(enumerate(iter_hub_rows(source, name), start=1), max_rows)
            return [_table_question(task, fields, number) for number, fields in rows]
        return _read_url(
            _url_of(source, name, files), name, lambda file: islice(task.questions(file), max_rows)
        )
    except RowError as error:
        raise DataInvalidError(f"{name}, {error}") from error


def _table_question(task: Task, fields: Mapping[str, Any], number: int) -> Question:
    """A question from a row of a table, where an absent field is null."""
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        return task.question(given, number)
    except RowError as error:
        raise TableRowError(error.line, error.field, error.problem) from None


def _url_of(source: str, name: str, files: Mapping[str, Path] | None) -> str:
    """Where an uploaded file was placed, or a URL that jobs may read."""
    if (path := (files or {}).get(source)) is not None:
        return str(path)
    reach = reach_of_this_process()
    if reach is not None and (refusal := reach.refusal_of_source(source)) is not None:
        raise ReferenceNotAllowedError(f"{name}: {refusal}")
    return source


def _read_url(url: str, name: str, read: Callable[[BinaryIO], Iterable[_Read]]) -> list[_Read]:
    import fsspec

    try:
        with fsspec.open(url, "rb") as file:
            return list(read(file))
    except ImportError as error:
        raise DataInvalidError(
            f"{name} {url!r} needs a package that the workers lack: {error}; "
            "for s3:// install hyplora[s3]"
        ) from error
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise DataInvalidError(
            f"{name}, kept in {url}, cannot be read ({reason}); upload it again, to storage that "
            "every worker sees, or check the URL and the workers' credentials"
        ) from error

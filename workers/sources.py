"""Reading the rows that a job names, from wherever they lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from workers.errors import DataInvalidError
from workers.rows import Columns, RowError, TableRowError, iter_numbered_rows, numbered
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
) -> list[NumberedRow]:
    """Read and validate all rows of a source.

    Args:
        source: The id of an uploaded file, a URL or a data set of the Hugging Face hub.
        name: The field of the spec that names it, for messages.
        files: Where uploaded files lie, by id.
        columns: Names that fields have in the source, where they are others.

    Raises:
        DataInvalidError: If the source or one of its rows cannot be read.
    """
    try:
        if isinstance(source, HubDatasetSpec):
            return list(numbered(_iter_hub(source, name), columns or {}))
        read = partial(iter_numbered_rows, columns=columns)
        return _read_url(_url_of(source, files), name, read)
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
    """
    try:
        if isinstance(source, HubDatasetSpec):
            rows = islice(enumerate(_iter_hub(source, name), start=1), max_rows)
            return [_table_question(task, fields, number) for number, fields in rows]
        return _read_url(
            _url_of(source, files), name, lambda file: islice(task.questions(file), max_rows)
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


def _url_of(source: str, files: Mapping[str, Path] | None) -> str:
    return str((files or {}).get(source, source))


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


def _iter_hub(source: HubDatasetSpec, name: str) -> Iterator[dict[str, Any]]:
    import datasets

    try:
        found = datasets.load_dataset(
            source.dataset, source.config, split=source.split, revision=source.revision
        )
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataInvalidError(
            f"{name}: data set {source.dataset!r} cannot be read from the Hugging Face hub: "
            f"{reason}; check its id, config and split, and HF_TOKEN if it is private"
        ) from error
    return iter(found)

"""Reading the rows that a job names, from wherever they lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.errors import DataInvalidError
from workers.rows import Columns, RowError, iter_numbered_rows, numbered
from workers.specs import HubDatasetSpec

if TYPE_CHECKING:
    from workers.rows import Row

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
        path = (files or {}).get(source)
        return _read_url(str(path) if path is not None else source, name, columns)
    except RowError as error:
        raise DataInvalidError(f"{name}, {error}") from error


def _read_url(url: str, name: str, columns: Columns | None) -> list[NumberedRow]:
    import fsspec

    try:
        with fsspec.open(url, "rb") as file:
            return list(iter_numbered_rows(file, columns))
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

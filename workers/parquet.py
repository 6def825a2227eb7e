"""Rows of a Parquet file, read with a bound on memory.

A few bytes of Parquet can stand for gigabytes. So row groups are measured before they are read,
only so many rows are unpacked together that they fit in the same bound, and each row is held to the
bound of a line. Lists that repeat one long text are bounded by nothing but the length of the row.
"""

from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, get_args

import pyarrow as pa
import pyarrow.parquet
import pydantic_core

from workers.rows import MAX_LINE_BYTES, Columns, TableRowError
from workers.specs import RowField

MAX_ROW_GROUP_BYTES = 256 << 20
"""Largest row group, unpacked."""

_MAX_BATCH_ROWS = 1024
_UNREADABLE = (pa.ArrowException, OSError, ValueError)  # ValueError: text that is no UTF-8


def iter_parquet(file: BinaryIO, columns: Columns) -> Iterator[Mapping[str, Any]]:
    """Read the columns that rows are made of, row by row.

    Args:
        file: Open for reading, and seekable.
        columns: Names that fields have in the file, where they are others.

    Raises:
        TableRowError: If the file is damaged, lacks a column or needs too much memory.
    """
    num_rows = 0
    try:
        for batch in _iter_batches(pyarrow.parquet.ParquetFile(file), columns):
            for fields in batch.to_pylist():
                num_rows += 1
                _require_short(fields, num_rows)
                yield fields
    except TableRowError:
        raise
    except _UNREADABLE as error:
        raise TableRowError(
            num_rows + 1, None, f"the Parquet file is damaged ({error}); write it again"
        ) from error


def _iter_batches(
    table: pyarrow.parquet.ParquetFile, columns: Columns
) -> Iterator[pyarrow.RecordBatch]:
    names = _columns_to_read(table.schema_arrow.names, columns)
    num_rows, largest = 0, 1
    for index in range(table.num_row_groups):
        group = table.metadata.row_group(index)
        if group.total_byte_size > MAX_ROW_GROUP_BYTES:
            raise TableRowError(
                num_rows + 1,
                None,
                f"begins a row group of {group.total_byte_size:,} bytes, and at most "
                f"{MAX_ROW_GROUP_BYTES:,} are read; write the file with smaller row groups, such "
                "as row_group_size=10_000 of pyarrow",
            )
        num_rows += group.num_rows
        largest = max(largest, group.total_byte_size)
    # No text is longer than its row group, however often its rows refer to it.
    batch_rows = min(MAX_ROW_GROUP_BYTES // largest, _MAX_BATCH_ROWS)
    return iter(table.iter_batches(batch_rows, columns=names))


def _columns_to_read(names: list[str], columns: Columns) -> list[str]:
    if missing := sorted(set(columns.values()) - set(names)):
        raise TableRowError(
            1,
            missing[0],
            f"is missing, and data.columns names it; the file has {', '.join(names)}",
        )
    found = [name for name in names if name in {*get_args(RowField), *columns.values()}]
    if names and not found:
        raise TableRowError(
            1,
            None,
            f"the file has the columns {', '.join(names)}; a row has instruction and output, "
            "prompt and completion, or messages",
        )
    return found


def _require_short(fields: Mapping[str, Any], number: int) -> None:
    text = pydantic_core.to_json(fields, bytes_mode="base64", serialize_unknown=True)
    if len(text) > MAX_LINE_BYTES:
        raise TableRowError(
            number, None, f"is longer than {MAX_LINE_BYTES} bytes of JSON; split or shorten the row"
        )

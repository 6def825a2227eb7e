"""Lists that go from the newest record to the oldest, a page at a time."""

from typing import TypeVar

from sqlalchemy import Select, select, tuple_

from service.tables import ApiKey, Job, UploadedFile

Record = TypeVar("Record", ApiKey, Job, UploadedFile)


def newest_first(table: type[Record], limit: int, last: Record | None) -> Select[Record]:
    """Ask for a page of records, and for one more, which tells whether another page follows.

    Args:
        table: Where they are.
        limit: Most records of the page.
        last: The last record of the page before; None for the first page.
    """
    query = select(table).order_by(table.created_at.desc(), table.id.desc()).limit(limit + 1)
    if last is None:
        return query
    return query.where(tuple_(table.created_at, table.id) < (last.created_at, last.id))

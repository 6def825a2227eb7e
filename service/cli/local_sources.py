"""Paths in a spec's document that stand where rows are named."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeGuard

from workers.specs import FILE_ID_PATTERN, SOURCE_SCHEMES

_NO_PATH = re.compile(rf"{FILE_ID_PATTERN}|^(?:{'|'.join(SOURCE_SCHEMES)})://")


@dataclass(frozen=True)
class LocalSource:
    """A path that stands where a spec names rows."""

    field: str
    """Name of the field."""

    holder: dict[Any, Any]
    """The mapping that the path stands in."""

    key: Any
    """Where in it."""

    path: str
    """The path, as the user wrote it."""


def local_sources(document: dict[str, Any]) -> Iterator[LocalSource]:
    """Every path, under the name that the spec's `sources` gives its field."""
    data = document.get("data")
    places = [("", document, "data")]  # of an analysis
    if isinstance(data, dict):
        places = [("data.", data, key) for key in ("train", "validation")]
        sets = data.get("evaluation_sets")
        if isinstance(sets, dict):  # each name may hold dots, so a field does not tell its keys
            places += [("data.evaluation_sets.", sets, key) for key in sets]
    for number, task in _numbered(document.get("tasks")):
        if isinstance(task, dict):
            places += [(f"tasks.{number}.", task, key) for key in ("data", "shots")]
    for prefix, holder, key in places:
        if _is_path(value := holder.get(key)):
            yield LocalSource(f"{prefix}{key}", holder, key, value)


def _numbered(items: object) -> Iterable[tuple[Any, object]]:
    """Items of a list; an override names them by number, too: `tasks.0.data=rows.jsonl`."""
    if isinstance(items, dict):
        return items.items()
    return enumerate(items) if isinstance(items, list) else ()


def _is_path(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and _NO_PATH.match(value) is None

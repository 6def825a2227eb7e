"""Job specs as files: YAML or JSON, overrides from the command line, and data named by path.

Nothing is validated here but the syntax: the service does that, once. What this module adds is the
place of every field, so that the service's answer can be shown as a line of the user's file.
"""

import copy
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from service.cli.errors import CliError
from service.cli.local_sources import local_sources
from workers.specs import SOURCE_SCHEMES

_FLOAT_TAG, _TIMESTAMP_TAG = "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp"


@dataclass(frozen=True)
class SpecFile:
    """A job spec as the user wrote it."""

    path: Path
    """The file."""

    document: dict[str, Any]
    """Its content, with overrides applied."""

    places: Mapping[str, str]
    """Where each field was written, such as `adapter.r` at `finetune.yaml:7`."""

    def place_of(self, field: str) -> str:
        """Return where a field was written; for one that is missing, where it belongs."""
        while field and field not in self.places:
            field = field.rpartition(".")[0]
        return self.places.get(field, str(self.path))


def read_spec_file(path: Path) -> SpecFile:
    """Read a job spec; `.json` is JSON, anything else YAML.

    Raises:
        CliError: If the file cannot be read, is no valid YAML or JSON, or is no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CliError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CliError(f"{path}: not UTF-8 text: byte {error.start} is {error.reason}") from error
    read = _read_json if path.suffix == ".json" else _read_yaml
    document, places = read(text, str(path))
    if not isinstance(document, dict):
        raise CliError(f"{path}: a job spec is a mapping of fields, starting with `kind: finetune`")
    return SpecFile(path, document, places)


def with_overrides(spec: SpecFile, assignments: Iterable[str]) -> SpecFile:
    """Apply `key.path=value` assignments; values are read as YAML.

    A path given for a data set is taken from the working directory, as a shell completes it, where
    one inside the file is taken from the file's folder.

    Raises:
        CliError: If an assignment has no such form or leads through a field that holds a value.
    """
    document, places = copy.deepcopy(spec.document), dict(spec.places)
    for assignment in assignments:
        field, separator, text = assignment.partition("=")
        keys = _keys_of(field)
        if not separator or not all(keys):
            raise CliError(f"--set {assignment}: write key.path=value, as in training.max_steps=50")
        value, _ = _read_yaml(text, f"--set {field}")
        given: dict[str, Any] = {}
        _assign(given, keys, value, field)
        for source in local_sources(given):
            source.holder[source.key] = str(Path(source.path).expanduser().absolute())
        _assign(document, keys, _value_at(given, keys), field)
        places[field] = f"--set {field}"
    return replace(spec, document=document, places=places)


def local_data(spec: SpecFile) -> dict[str, Path]:
    """Return the local files that a spec names as sources of rows, by field.

    File ids, URLs of storage that the workers read, and data sets of the hub are left alone.

    Raises:
        CliError: If one of them is no file.
    """
    found = {}
    for source in local_sources(spec.document):
        path = spec.path.parent / Path(source.path).expanduser()
        if not path.is_file():
            schemes = ", ".join(f"{scheme}://" for scheme in SOURCE_SCHEMES)
            raise CliError(
                f"{spec.place_of(source.field)}: {source.field}: there is no file {path}: "
                "give the path of rows as JSON lines or Parquet, an id that `hyplora upload` "
                f"printed, or a URL that begins with one of {schemes}"
            )
        found[source.field] = path
    return found


def with_file_ids(spec: SpecFile, file_ids: Mapping[str, str]) -> SpecFile:
    """Put the ids of uploaded files where the paths of `local_data` were."""
    document = copy.deepcopy(spec.document)
    for source in list(local_sources(document)):
        if source.field in file_ids:
            source.holder[source.key] = file_ids[source.field]
    return replace(spec, document=document)


class _SpecLoader(yaml.SafeLoader):
    """PyYAML's safe loader, with `3e-4` a number and dates and `.nan` texts, as JSON has them."""


_SpecLoader.yaml_implicit_resolvers = {
    first: [pair for pair in resolvers if pair[0] not in {_FLOAT_TAG, _TIMESTAMP_TAG}]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_SpecLoader.add_implicit_resolver(
    _FLOAT_TAG,
    re.compile(
        r"""^(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?
            |[-+]?[0-9]+[eE][-+]?[0-9]+)$""",
        re.VERBOSE,
    ),
    list("-+.0123456789"),
)


def _read_yaml(text: str, source: str) -> tuple[Any, dict[str, str]]:
    """Read one YAML document and the places of its fields."""
    try:
        document, places = _parse_yaml(text, source)
        json.dumps(document)
    except yaml.MarkedYAMLError as error:
        place = _place(source, error.problem_mark or error.context_mark)
        reason = error.problem or error.context
        raise CliError(f"{place}: not valid YAML: {reason}") from error
    except yaml.YAMLError as error:
        raise CliError(f"{source}: not valid YAML: {error}") from error
    except (TypeError, ValueError) as error:
        raise CliError(f"{source}: holds what JSON cannot: {error}") from error
    return document, places


def _parse_yaml(text: str, source: str) -> tuple[Any, dict[str, str]]:
    loader = _SpecLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, {}
        places = _places_of(node, source)
        return loader.construct_document(node), places
    finally:
        loader.dispose()


def _read_json(text: str, source: str) -> tuple[Any, dict[str, str]]:
    try:
        return json.loads(text, parse_constant=str), {}
    except json.JSONDecodeError as error:
        raise CliError(f"{source}:{error.lineno}: not valid JSON: {error.msg}") from error


def _places_of(root: yaml.Node, source: str) -> dict[str, str]:
    """Map dotted field paths to places; refuses a key that is given twice."""
    places: dict[str, str] = {}
    pending, seen = [("", root)], set()
    while pending:
        prefix, node = pending.pop()
        if id(node) in seen:  # an alias; it may even lead back to itself
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            children = [(str(index), value, value) for index, value in enumerate(node.value)]
        elif isinstance(node, yaml.MappingNode):
            children = [(str(key.value), key, value) for key, value in node.value]
        else:
            continue
        for name, at, value in children:
            field = f"{prefix}{name}"
            if field in places:
                raise CliError(
                    f"{_place(source, at.start_mark)}: {field} is given twice, first at "
                    f"{places[field]}"
                )
            places[field] = _place(source, at.start_mark)
            pending.append((f"{field}.", value))
    return places


def _place(source: str, mark: yaml.Mark | None) -> str:
    return source if mark is None or source.startswith("--set") else f"{source}:{mark.line + 1}"


def _keys_of(field: str) -> list[str]:
    """Keys that lead to a field; those of a search's space are names of fields, with a dot."""
    keys = field.split(".")
    if keys[0] != "space" or len(keys) < 3 or not all(keys):
        return keys
    return [keys[0], ".".join(keys[1:3]), *keys[3:]]


def _value_at(document: Mapping[str, Any], keys: Iterable[str]) -> object:
    value: Any = document
    for key in keys:
        value = value[key]
    return value


def _assign(document: dict[str, Any], keys: list[str], value: object, field: str) -> None:
    target: Any = document
    for key, next_key in pairwise(keys):
        if isinstance(target, list):
            target = target[_index(target, key, field)]
        else:
            target = target.setdefault(key, {})
        if not isinstance(target, dict | list):
            raise CliError(f"--set {field}: {key} already holds a value, not {next_key}")
    target[_index(target, keys[-1], field) if isinstance(target, list) else keys[-1]] = value


def _index(items: list[Any], key: str, field: str) -> int:
    if not key.isdecimal() or int(key) >= len(items):
        raise CliError(f"--set {field}: {key} is no place in a list of {len(items)}; count from 0")
    return int(key)

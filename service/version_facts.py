"""What the tags of a model version tell: those that jobs register it with, and evaluations add."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_EVALUATION_KEY = re.compile(r"evaluation\.(?P<task>.+)\.(?P<metric>[^.]+)")
_NUMBER = r"-?[0-9.]+(?:e-?[0-9]+)?"
_EVALUATION = re.compile(
    rf"(?P<value>{_NUMBER}) \[(?P<low>{_NUMBER}), (?P<high>{_NUMBER})\], "
    r"(?P<num_rows>[0-9]+) rows, (?P<job_id>job-[0-9a-f]{16})"
)
_MEASURED = ("train_loss", "eval_loss", "steps", "num_trainable_parameters")
_SOURCE = re.compile(r"(?P<role>.+)_(?P<kind>sha256|source)")
_NO_ROLES = {"spec"}


@dataclass(frozen=True)
class Evaluation:
    """How a version answered the questions of a task."""

    task: str
    metric: str
    value: float
    low: float
    high: float
    num_rows: int
    job_id: str


@dataclass(frozen=True)
class DataFact:
    """Rows that went into a version."""

    role: str
    """What they were, such as train or evaluation_sets.exam."""
    source: str | None
    """Their address; None for an uploaded file."""
    sha256: str | None
    """Their digest; None for those that the workers read at an address."""


def number(tags: Mapping[str, str], name: str) -> float | None:
    """A tag as a number; None if it is missing or none."""
    try:
        return float(tags[name])
    except (KeyError, ValueError):
        return None


def scores(tags: Mapping[str, str]) -> dict[str, float]:
    """What was measured at the end of the training."""
    found = {name: number(tags, name) for name in _MEASURED}
    return {name: value for name, value in found.items() if value is not None}


def evaluations(tags: Mapping[str, str]) -> list[Evaluation]:
    """The evaluations of a version, by task; what somebody else has tagged is left out."""
    return sorted(_evaluations(tags), key=lambda each: (each.task, each.metric))


def data(tags: Mapping[str, str]) -> list[DataFact]:
    """The rows that went into a version, by role."""
    found = []
    for key, value in sorted(tags.items()):
        match = _SOURCE.fullmatch(key)
        if match is None or match["role"] in _NO_ROLES:
            continue
        is_digest = match["kind"] == "sha256"
        found.append(
            DataFact(match["role"], None if is_digest else value, value if is_digest else None)
        )
    return found


def _evaluations(tags: Mapping[str, str]) -> Iterator[Evaluation]:
    for key, value in tags.items():
        named, told = _EVALUATION_KEY.fullmatch(key), _EVALUATION.fullmatch(value)
        if named and told:
            yield Evaluation(
                named["task"],
                named["metric"],
                float(told["value"]),
                float(told["low"]),
                float(told["high"]),
                int(told["num_rows"]),
                told["job_id"],
            )

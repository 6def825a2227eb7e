"""Problem documents as a person reads them: a sentence, then a line for each field at fault."""

import json
from collections.abc import Callable, Iterable, Iterator

from service.client import ProblemError
from service.errors import FieldError


def problem_text(
    error: ProblemError, place_of: Callable[[FieldError], str] = lambda fault: ""
) -> str:
    """Write a problem document for a terminal.

    Args:
        error: What the service answered.
        place_of: Finds the line of the user's file that a fault stands in.
    """
    return "\n".join([str(error), *fault_lines(error.problem.errors, place_of)])


def fault_lines(
    faults: Iterable[FieldError], place_of: Callable[[FieldError], str]
) -> Iterator[str]:
    """A line for each field at fault; arguments are as in `problem_text`."""
    for fault in faults:
        place = place_of(fault)
        given = "" if fault.value is None else f" (given: {_shortened(fault.value)})"
        yield f"  {f'{place}: ' if place else ''}{fault.field}: {fault.message}{given}"


def _shortened(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."

"""Regular expressions that users write, matched in time linear in the text.

Python's engine backtracks, so that a pattern such as `(a+)+$` can hold a worker for ever. These
patterns run in RE2 instead (the copy inside pyarrow), which has no lookaround and no back
references and in return never needs more than one pass; it also bounds counted repetitions.
"""

MAX_PATTERN_CHARS = 1000
"""Longest pattern."""

_GROUP = "(?P<answer>"


def first_match(pattern: str, text: str, *, ignore_case: bool = False) -> str | None:
    """What a pattern first finds: the group `answer` if it has one, else the whole match.

    Raises:
        ValueError: If the pattern is not valid; the message says why and what to do.
    """
    import pyarrow as pa  # takes a moment to import
    import pyarrow.compute

    grouped = pattern if _GROUP in pattern else f"{_GROUP}{pattern})"
    flagged = f"(?i){grouped}" if ignore_case else grouped
    try:
        found = pyarrow.compute.extract_regex(pa.scalar(text, pa.string()), flagged).as_py()
    except pa.ArrowInvalid as error:
        raise ValueError(f"{pattern!r} is no pattern here: {_explain(str(error))}") from None
    return None if found is None else found["answer"]


def check_pattern(pattern: str) -> str:
    """The pattern itself, if it is valid.

    Raises:
        ValueError: If it is not; the message says why and what to do.
    """
    first_match(pattern, "")
    return pattern


def _explain(problem: str) -> str:
    """RE2's complaint, and what to do."""
    if "unnamed groups" in problem:
        return (
            "it has a group without name; write (?P<answer>…) around what is to be read and "
            "(?:…) around anything else"
        )
    reason = problem.removeprefix("Invalid regular expression: ").partition(": (?P<answer>")[0]
    return f"{reason}; RE2's syntax is meant, which has no lookaround and no back references"

r"""What an answer puts into ``\boxed{…}``, the mark of a final answer in LaTeX."""

import re

_OPENING = re.compile(r"\\f?box(?:ed)?\s?\{")


def boxed_texts(text: str) -> list[str]:
    r"""The contents of each ``\boxed{…}`` or ``\fbox{…}`` of a text, outermost braces removed.

    A box that never closes, as in an answer cut off, holds the rest of the text.
    """
    found = []
    position = 0
    while (opening := _OPENING.search(text, position)) is not None:
        position = _end_of_group(text, opening.end())
        found.append(text[opening.end() : position])
    return found


def _end_of_group(text: str, start: int) -> int:
    """Where the group closes that was open before `start`; the text's end if it never does."""
    depth = 1
    for index in range(start, len(text)):
        if text[index] in "{}":
            depth += 1 if text[index] == "{" else -1
            if depth == 0:
                return index
    return len(text)

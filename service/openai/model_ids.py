"""How OpenAI's clients name adapters: `NAME:VERSION`.

Neither a Hugging Face id nor a folder is written so, and clients put a colon into a path as it is.
"""

import re
from dataclasses import dataclass
from typing import Self

_NAME = r"(?P<name>[A-Za-z0-9][A-Za-z0-9 ._+-]*)"
_FORM = re.compile(rf"{_NAME}:(?P<version>[0-9]{{1,9}})")
_REFERENCE = re.compile(rf"{_NAME}(?::(?P<version>[0-9]{{1,9}})|(?P<alias>@[A-Za-z0-9_-]+))")


@dataclass(frozen=True)
class ModelId:
    """A version of a registered model."""

    name: str
    version: int

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read an id; None for anything else."""
        match = _FORM.fullmatch(text)
        return cls(match["name"], int(match["version"])) if match else None

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"


def parts_of(text: str) -> tuple[str, str] | None:
    """A model's name and the number of a version, or @ and an alias; None for anything else."""
    match = _REFERENCE.fullmatch(text)
    return match and (match["name"], match["version"] or match["alias"])

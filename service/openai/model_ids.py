"""How OpenAI's clients name adapters: `NAME:VERSION`.

Neither a Hugging Face id nor a folder is written so, and clients put a colon into a path as it is.
"""

import re
from dataclasses import dataclass
from typing import Self

_FORM = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9 ._+-]*):(?P<version>[0-9]{1,9})")


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

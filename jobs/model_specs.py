"""What a user says about the models that are looked at: a base model, or one with an adapter.

Torch-free.
"""

import re
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from workers.specs import Spec

BASE = "base"
"""What the base model without an adapter is called."""

_ADAPTER_PATTERN = r"^(models:/|runs:/|/).+"
"""An MLflow URI, or the absolute path of a folder that every node sees."""


class ModelSpec(Spec):
    """A base model as it is, or with one adapter."""

    name: str = Field("", pattern=r"^[A-Za-z0-9][\w@-]{0,79}$|^$")
    """What reports call it; by default made from `adapter`, and "base" without one."""

    adapter: str | None = Field(None, pattern=_ADAPTER_PATTERN, max_length=512)
    """An MLflow URI (models:/NAME@ALIAS, models:/NAME/VERSION, runs:/…) or a folder; by default
    none: the base model as it is."""

    @model_validator(mode="before")
    @classmethod
    def _has_a_name(cls, given: object) -> object:
        if isinstance(given, dict) and not given.get("name"):
            adapter = given.get("adapter")
            return given | {"name": _name_of(adapter) if isinstance(adapter, str) else BASE}
        return given

    @model_validator(mode="after")
    def _the_base_is_the_base(self) -> Self:
        if (self.name == BASE) != (self.adapter is None):
            raise ValueError(
                f"name: {BASE!r} is the base model without an adapter; name others otherwise"
            )
        return self


def _name_of(adapter: str) -> str:
    """The last parts of a reference, in characters that names may have."""
    path = re.sub(r"^(models|runs):/", "", adapter).strip("/")
    last = path if adapter.startswith("models:/") else path.rpartition("/")[2]
    return re.sub(r"[^\w@-]", "-", last)[:80].lstrip("@_-") or "adapter"


def _from_text(value: object) -> object:
    if value == BASE:
        return {}
    return {"adapter": value} if isinstance(value, str) else value


ModelChoice = Annotated[ModelSpec, BeforeValidator(_from_text)]
"""A model: "base", an adapter's URI or folder, or an object with a name of one's own."""

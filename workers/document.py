"""The base of what travels as JSON between the parts and is read by people."""

from pydantic import BaseModel, ConfigDict


class Document(BaseModel):
    """Frozen, closed to unknown fields, documented by its docstrings."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

"""Where the values of a searched field come from. Torch-free."""

import json
from collections.abc import Mapping
from typing import Annotated

from pydantic import Discriminator, Field, Tag

from workers.specs import Spec

Scalar = bool | int | float | str | None

Value = Scalar | list[str]
"""A value of a searched field, as JSON has it."""

_RANGES = ("choice", "uniform", "loguniform", "integers")


class ChoiceSpec(Spec):
    """Any of some values."""

    choice: tuple[Scalar | tuple[str, ...], ...] = Field(min_length=1, max_length=64)
    """The values."""


class UniformSpec(Spec):
    """A number between two, all equally likely."""

    uniform: tuple[float, float]
    """Least and largest."""


class LogUniformSpec(Spec):
    """A number between two, equally likely in each order of magnitude."""

    loguniform: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
    """Least and largest."""


class IntegersSpec(Spec):
    """A whole number between two, both included."""

    integers: tuple[int, int]
    """Least and largest."""


def _kind_of_range(value: object) -> str | None:
    given = value if isinstance(value, Mapping) else getattr(type(value), "model_fields", {})
    return next((kind for kind in _RANGES if kind in given), None)


RangeSpec = Annotated[
    Annotated[ChoiceSpec, Tag("choice")]
    | Annotated[UniformSpec, Tag("uniform")]
    | Annotated[LogUniformSpec, Tag("loguniform")]
    | Annotated[IntegersSpec, Tag("integers")],
    Discriminator(
        _kind_of_range,
        custom_error_type="range_unknown",
        custom_error_message=f"give one of {', '.join(_RANGES)}",
    ),
]
"""Where a field's values come from."""


def edges(values: RangeSpec) -> list[Value]:
    """Values that must be valid for all of a range to be."""
    match values:
        case ChoiceSpec(choice=choice):
            return [_as_json(value) for value in choice]
        case UniformSpec() | LogUniformSpec():
            low, high = bounds(values)
            return [low, high, low + (high - low) / 3]  # which no field of whole numbers takes
        case _:
            return list(bounds(values))


def bounds(values: UniformSpec | LogUniformSpec | IntegersSpec) -> tuple[float, float]:
    """Least and largest value."""
    match values:
        case UniformSpec():
            return values.uniform
        case LogUniformSpec():
            return values.loguniform
        case IntegersSpec():
            return values.integers


def grid_values(values: RangeSpec) -> list[Value]:
    """All values of a range that has only so many."""
    match values:
        case ChoiceSpec(choice=choice):
            return [_as_json(value) for value in choice]
        case IntegersSpec(integers=(low, high)):
            return list(range(low, high + 1))
        case _:
            raise TypeError(f"{values} has no end of values")


def _as_json(value: Scalar | tuple[str, ...]) -> Value:
    return list(value) if isinstance(value, tuple) else value


def require_rising(field: str, values: RangeSpec) -> None:
    """Raise ValueError, with the field, for a range that has no values, or one of them twice."""
    if isinstance(values, ChoiceSpec):
        if len({json.dumps(value) for value in values.choice}) < len(values.choice):
            raise ValueError(f"space.{field}: a value is given twice")
        return
    low, high = bounds(values)
    if low >= high:
        raise ValueError(f"space.{field}: {low} is not less than {high}; give the least first")

"""Where the values of a searched field lie on an axis, and how they are put into bins."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jobs.search_report.trial_table import TrialRecord
from jobs.search_report.value_labels import number_label, value_label
from jobs.search_space import ChoiceSpec, LogUniformSpec, RangeSpec, Value, bounds, grid_values

_TITLES: Mapping[str, str] = {
    "adapter.curvature": "curvature K (in units of ν²)",
    "adapter.r": "rank r",
    "adapter.alpha": "alpha",
    "adapter.learn_curvature": "K is learned",
    "training.learning_rate": "learning rate",
    "training.max_steps": "steps",
}

_METRIC_TITLES: Mapping[str, str] = {
    "eval/loss": "eval/loss (nats a token)",
    "train/loss": "train/loss (nats a token)",
    "train/curvature": "learned curvature K (in units of ν²)",
    "num_trainable_parameters": "trainable parameters",
    "seconds_a_step": "seconds a step",
}

_NUM_BINS = 5
_MOST_INTEGERS = 6
_FEWEST_TICKS = 4
_WIDE = 20.0
"""Numbers to choose from that span more than this ratio lie on a logarithmic axis."""


@dataclass(frozen=True)
class Bin:
    """A part of an axis, or one value of it."""

    index: int
    label: str

    centre: float
    """Its middle on the axis, as a number; the place in the list for a category."""


@dataclass(frozen=True)
class FieldAxis:
    """The axis of one searched field."""

    field: str
    is_log: bool

    low: float
    high: float

    choices: tuple[str, ...] | None
    """The values as labels, if they are so few; else they lie between `low` and `high`."""

    is_numeric: bool
    """Whether the values are numbers."""

    keys: tuple[str, ...] = ()
    """The choices as JSON."""

    @property
    def title(self) -> str:
        """What the axis is labelled with."""
        return _TITLES.get(self.field, self.field.partition(".")[2].replace("_", " "))

    @property
    def name(self) -> str:
        """The title without its unit."""
        return self.title.partition(" (")[0]

    def position(self, value: Value) -> float:
        """Where a value lies, from 0 to 1."""
        if self.choices is not None:
            last = len(self.choices) - 1
            return self._index(value) / last if last else 0.5
        return self._fraction(_number(value))

    def ticks(self) -> list[tuple[float, str]]:
        """(position, label) of the values that the axis names."""
        if self.choices is not None:
            last = len(self.choices) - 1
            return [(i / last if last else 0.5, label) for i, label in enumerate(self.choices)]
        numbers = self.decades() if self.is_log else self._edges(4)
        return [(self._fraction(number), number_label(number)) for number in numbers]

    def decades(self) -> list[float]:
        """Round numbers of a logarithmic axis: powers of ten and, if these are few, three times."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for steps in ((1,), (1, 3), (1, 2, 5)):
            numbers = [float(f"{step}e{power}") for power in powers for step in steps]
            inside = [number for number in numbers if self.low <= number <= self.high]
            if len(inside) >= _FEWEST_TICKS:
                return inside
        return [self.low, self.high]

    def bin_of(self, value: Value) -> Bin:
        """The bin that a value falls into."""
        if self.choices is not None:
            index = self._index(value)
            return Bin(
                index, self.choices[index], _number(value) if self.is_numeric else float(index)
            )
        index = min(int(self._fraction(_number(value)) * _NUM_BINS), _NUM_BINS - 1)
        low, high = self._edges(_NUM_BINS)[index : index + 2]
        centre = math.sqrt(low * high) if self.is_log else (low + high) / 2
        return Bin(index, f"{number_label(low, 2)} – {number_label(high, 2)}", centre)

    def _index(self, value: Value) -> int:
        """Place of a choice; a number that is none of them is put with the nearest."""
        if not self.is_numeric:
            return self.keys.index(json.dumps(value))
        return int(np.argmin([abs(json.loads(key) - _number(value)) for key in self.keys]))

    def _fraction(self, number: float) -> float:
        low, high = self.low, self.high
        if self.is_log:
            low, high, number = math.log(low), math.log(high), math.log(number)
        return min(max((number - low) / (high - low), 0.0), 1.0)

    def _edges(self, parts: int) -> list[float]:
        if self.is_log:
            ratio = self.high / self.low
            return [self.low * ratio ** (i / parts) for i in range(parts + 1)]
        return [self.low + (self.high - self.low) * i / parts for i in range(parts + 1)]


def field_axis(field: str, values: RangeSpec) -> FieldAxis:
    """The axis of a field; numbers to choose from are put in rising order."""
    if isinstance(values, ChoiceSpec):
        choice = grid_values(values)
        numbers = [_number(value) for value in choice if _is_number(value)]
        is_numeric = len(numbers) == len(choice)
        if is_numeric:
            choice = sorted(choice, key=_number)
        return _choice_axis(field, choice, numbers if is_numeric else [])
    low, high = bounds(values)
    if isinstance(low, int) and isinstance(high, int) and high - low < _MOST_INTEGERS:
        numbers = [float(number) for number in range(low, high + 1)]
        return _choice_axis(field, list(range(low, high + 1)), numbers)
    return FieldAxis(field, isinstance(values, LogUniformSpec), low, high, None, True)


def searched_fields(
    space: Mapping[str, RangeSpec], trials: Sequence[TrialRecord]
) -> dict[str, FieldAxis]:
    """Axes of the fields that have more than one value among the trials."""
    return {
        field: field_axis(field, values)
        for field, values in space.items()
        if len({json.dumps(trial.values[field]) for trial in trials}) > 1
    }


def metric_title(metric: str) -> str:
    """What an axis of a metric is labelled with, its unit included."""
    return _METRIC_TITLES.get(metric, metric)


def metric_name(metric: str) -> str:
    """The title of a metric without its unit."""
    return metric_title(metric).partition(" (")[0]


def _choice_axis(field: str, choice: Sequence[Value], numbers: list[float]) -> FieldAxis:
    low, high = (min(numbers), max(numbers)) if numbers else (0.0, float(len(choice) - 1))
    is_log = bool(numbers) and low > 0 and high / low > _WIDE
    keys = tuple(json.dumps(value) for value in choice)
    labels = tuple(value_label(value) for value in choice)
    if len(set(labels)) < len(labels):
        labels = keys
    return FieldAxis(field, is_log, low, high, labels, bool(numbers), keys)


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Value) -> float:
    assert isinstance(value, int | float), value
    return float(value)

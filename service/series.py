"""Series of metrics made short enough to be drawn, without losing their shape."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from service.boundaries import History


@dataclass(frozen=True)
class Series:
    """What is shown of a metric: its points by step, each step once."""

    steps: Sequence[int]
    values: Sequence[float]
    times_ms: Sequence[int]
    num_points: int
    """How many there were before some were left out."""
    num_not_finite: int
    """How many of those were NaN or infinite."""
    is_sampled: bool
    """Whether MLflow had left points out before."""


def shortened(history: History, max_points: int) -> Series:
    """At most so many points of a history, which all are kept where they are no more.

    First and last point stay. Those between are divided into stretches of equal numbers of points,
    and each keeps its smallest and its largest value and, where there is one, its first that is not
    finite: a peak, or a loss that diverged for a single step, is seen at any length.

    Args:
        history: What was logged. Of a step that was logged again, as by an attempt that resumed,
            the last value counts.
        max_points: At least 5.
    """
    last_of = dict(zip(history.steps, range(len(history.steps)), strict=True))
    places = [last_of[step] for step in sorted(last_of)]
    values = [history.values[place] for place in places]
    num_not_finite = sum(not math.isfinite(value) for value in values)
    if len(places) > max_points:
        places = [places[index] for index in _kept(values, max_points, num_not_finite > 0)]
    return Series(
        steps=[history.steps[place] for place in places],
        values=[history.values[place] for place in places],
        times_ms=[history.times_ms[place] for place in places],
        num_points=len(last_of),
        num_not_finite=num_not_finite,
        is_sampled=history.is_sampled,
    )


def _kept(values: Sequence[float], max_points: int, has_not_finite: bool) -> list[int]:
    """Indices of the values that stay, rising."""
    num_inner = len(values) - 2
    num_stretches = (max_points - 2) // (3 if has_not_finite else 2)
    chosen = {0, len(values) - 1}
    for number in range(num_stretches):
        first = 1 + number * num_inner // num_stretches
        end = 1 + (number + 1) * num_inner // num_stretches
        chosen.update(_extremes(values, first, end))
    return sorted(chosen)


def _extremes(values: Sequence[float], first: int, end: int) -> Iterator[int]:
    finite = [index for index in range(first, end) if math.isfinite(values[index])]
    if finite:
        yield min(finite, key=values.__getitem__)
        yield max(finite, key=values.__getitem__)
    if len(finite) < end - first:
        yield next(index for index in range(first, end) if not math.isfinite(values[index]))

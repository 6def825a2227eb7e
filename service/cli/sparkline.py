"""A series in one line of text."""

from collections.abc import Sequence

_BARS = "▁▂▃▄▅▆▇█"
_NOT_FINITE = "×"
_WIDTH = 40


def sparkline(values: Sequence[float | None], width: int = _WIDTH) -> str:
    """Draw the course of a series, with a cross where a value is not finite.

    Args:
        values: The series; None where it is not finite.
        width: Most characters; each stands for the mean of as many values.
    """
    finite = [value for value in values if value is not None]
    if not finite:
        return _NOT_FINITE * min(len(values), width)
    low, high = min(finite), max(finite)
    columns = min(len(values), width)
    drawn = ""
    for number in range(columns):
        part = values[number * len(values) // columns : (number + 1) * len(values) // columns]
        if None in part:
            drawn += _NOT_FINITE
            continue
        # Halves first: the sum of two very large values is none.
        mean = sum(value / len(part) for value in part if value is not None)
        share = (mean / 2 - low / 2) / (high / 2 - low / 2) if high > low else 0.0
        drawn += _BARS[min(len(_BARS) - 1, max(0, int(share * len(_BARS))))]
    return drawn

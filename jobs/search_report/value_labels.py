"""Values and numbers in few characters."""

import json

from jobs.search_space import Value


def number_label(number: float, digits: int = 3) -> str:
    """A number in so many digits, without an exponent from 0.001 to 9999."""
    if number == 0 or 1e-3 <= abs(number) < 1e4:
        return f"{number:.{digits}g}" if abs(number) < 10**digits else f"{number:.0f}"
    mantissa, _, exponent = f"{number:.1e}".partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def value_label(value: Value) -> str:
    """A value in the words of JSON; lists with commas."""
    if isinstance(value, list | tuple):
        return ", ".join(value)
    if isinstance(value, float):
        return number_label(value)
    return value if isinstance(value, str) else json.dumps(value)

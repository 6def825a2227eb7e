"""P-values of many comparisons at once, and what comparisons so many could have shown."""

from collections.abc import Sequence

from jobs.compare_report.difference import LEVEL, Difference
from jobs.compare_report.sign_flip import fewest_rows_that_show

_POWER = 0.8


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values such that calling all below 5 % leaves a 5 % chance of any false call.

    Source:
        Holm 1979: the smallest is multiplied by their number, the next by one less, and so on; no
        adjusted value is below that of a smaller one.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for place, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - place) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def detectable_difference(
    difference: Difference, num_comparisons: int, num_rows: int, *, least_step: float
) -> float:
    """The smallest true difference that data so noisy would have shown in four cases of five.

    Holm's correction is counted as hard as it can get: the level is 5 % over the comparisons.

    Args:
        difference: Whose variance holds.
        num_comparisons: Corrected together.
        num_rows: Questions of all its tasks.
        least_step: By how much one row can move the estimate at least; 0 if by anything.

    Source:
        Bloom 1995 (minimum detectable effect); Card et al. 2020, arXiv:2010.06595 (power in NLP).
    """
    level = (1 - LEVEL) / num_comparisons
    by_spread = difference.reach(level / 2) + difference.reach(1 - _POWER)
    fewest = fewest_rows_that_show(level)
    # With fewer rows no pattern of answers reaches the level: not even the greatest difference.
    by_signs = fewest * least_step if fewest <= num_rows else float("inf")
    return max(by_spread, by_signs)

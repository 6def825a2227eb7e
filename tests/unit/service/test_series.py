"""What of a long series is shown."""

import math
import random
from collections.abc import Sequence

import pytest

from service.boundaries import History
from service.series import Series, shortened


def history_of(values: Sequence[float], first_step: int = 0) -> History:
    steps = range(first_step, first_step + len(values))
    return History(steps, values, [1000 * step for step in steps])


def noise(num_points: int) -> list[float]:
    draw = random.Random(0)
    return [draw.gauss(0, 1) for _ in range(num_points)]


def points_of(series: Series) -> list[tuple[int, float]]:
    return list(zip(series.steps, series.values, strict=True))


@pytest.mark.parametrize("num_points", [0, 1, 2, 499, 500])
def test_a_series_that_is_short_enough_is_kept_as_it_is(num_points: int) -> None:
    values = noise(num_points)

    series = shortened(history_of(values), 500)

    assert points_of(series) == list(enumerate(values))
    assert list(series.times_ms) == [1000 * step for step in range(num_points)]
    assert series.num_points == num_points


@pytest.mark.parametrize("max_points", [10, 11, 500, 5000])
@pytest.mark.parametrize("num_points", [501, 5001, 100_000])
def test_a_long_series_keeps_its_ends_and_extremes_and_never_has_too_many_points(
    max_points: int, num_points: int
) -> None:
    values = noise(num_points)

    series = shortened(history_of(values, first_step=7), max_points)

    assert len(series.steps) <= max(max_points, 1)
    assert list(series.steps) == sorted(set(series.steps))
    assert (series.steps[0], series.steps[-1]) == (7, num_points + 6)
    assert {min(values), max(values)} <= set(series.values)
    assert all(values[step - 7] == value for step, value in points_of(series))
    assert series.num_points == num_points


def test_the_extremes_of_every_stretch_are_kept() -> None:
    values = [math.sin(step / 500) for step in range(100_000)]

    series = shortened(history_of(values), 500)

    tops = [value for value in series.values if value > 0.999]
    bottoms = [value for value in series.values if value < -0.999]
    num_waves = 100_000 / 500 / (2 * math.pi)
    assert len(tops) >= int(num_waves)
    assert len(bottoms) >= int(num_waves)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_value_that_is_not_finite_is_never_lost(value: float) -> None:
    for place in (0, 1, 54_321, 99_998, 99_999):
        values = noise(100_000)
        values[place] = value

        series = shortened(history_of(values), 10)

        found = {step: kept for step, kept in points_of(series) if not math.isfinite(kept)}
        assert list(found) == [place]
        assert str(found[place]) == str(value)
        assert series.num_not_finite == 1
        assert len(series.steps) <= 10


def test_a_series_that_is_nowhere_finite_is_shortened_too() -> None:
    series = shortened(history_of([math.nan] * 10_000), 100)

    assert 30 <= len(series.steps) <= 100
    assert series.num_not_finite == 10_000


def test_of_a_step_that_an_attempt_repeated_the_last_value_counts() -> None:
    history = History(
        steps=[1, 2, 3, 4, 2, 3, 4, 5],
        values=[1.0, 2.0, 3.0, 4.0, 20.0, 30.0, 40.0, 50.0],
        times_ms=[10, 20, 30, 40, 50, 60, 70, 80],
    )

    series = shortened(history, 100)

    assert points_of(series) == [(1, 1.0), (2, 20.0), (3, 30.0), (4, 40.0), (5, 50.0)]
    assert list(series.times_ms) == [10, 50, 60, 70, 80]
    assert series.num_points == 5

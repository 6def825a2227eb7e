"""What a trial is judged by."""

import math

import pytest

from jobs.tuning.objectives import means_and_errors


def test_seeds_are_averaged_with_the_standard_error_of_their_mean() -> None:
    means, errors = means_and_errors([{"eval/loss": value} for value in (1.0, 2.0, 3.0)])
    assert means == {"eval/loss": 2.0}
    assert errors == {"eval/loss": pytest.approx(1 / math.sqrt(3))}


def test_one_seed_has_no_error() -> None:
    assert means_and_errors([{"eval/loss": 1.5}]) == ({"eval/loss": 1.5}, {})

import pytest

from service import rate_limits
from service.rate_limits import RateLimit, whole_seconds


class Clock:
    """Stands still until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_gives_what_it_holds_and_then_says_when_to_come_again() -> None:
    limit = RateLimit(per_minute=60, burst=2, clock=Clock())

    assert [limit.take("a") for _ in range(3)] == [None, None, 1.0]


def test_a_bucket_fills_with_time_and_never_runs_over() -> None:
    clock = Clock()
    limit = RateLimit(per_minute=60, burst=2, clock=clock)
    for _ in range(2):
        limit.take("a")

    clock.now = 0.75
    assert limit.take("a") == pytest.approx(0.25)
    clock.now = 1000.0
    assert [limit.take("a") for _ in range(3)] == [None, None, 1.0]


def test_buckets_of_different_names_are_apart() -> None:
    limit = RateLimit(per_minute=1, burst=1, clock=Clock())

    assert [limit.take(name) for name in "aba"] == [None, None, 60.0]


def test_a_token_that_is_given_back_can_be_taken_again() -> None:
    limit = RateLimit(per_minute=1, burst=1, clock=Clock())
    limit.take("a")

    limit.give_back("a")
    limit.give_back("a")

    assert [limit.take("a") for _ in range(2)] == [None, 60.0]


def test_the_name_used_least_recently_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "_MAX_BUCKETS", 2)
    limit = RateLimit(per_minute=1, burst=1, clock=Clock())

    waits = [limit.take(name) for name in ("a", "b", "a", "c", "a", "b")]

    assert waits == [None, None, 60.0, None, 60.0, None]


@pytest.mark.parametrize(("seconds", "told"), [(0.01, 1), (1.0, 1), (1.01, 2)])
def test_the_wait_that_is_told_is_never_too_short(seconds: float, told: int) -> None:
    assert whole_seconds(seconds) == told

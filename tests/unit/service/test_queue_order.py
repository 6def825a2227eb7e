"""Who goes next: projects by turns, and within one by priority and age."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from service.queue_order import take_turns
from service.tables import Job
from tests.unit.service.stage import Stage

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def waiting(*projects: str) -> list[Job]:
    """One job each, the oldest first."""
    return [
        Job(id=f"job-{age}", project=project, created_at=BEGIN + timedelta(seconds=age))
        for age, project in enumerate(projects)
    ]


def turns(jobs: Sequence[Job]) -> str:
    return "".join(job.project for job in jobs)


def test_a_project_with_a_long_queue_does_not_hold_up_the_others() -> None:
    assert turns(take_turns(waiting(*"aaaaabc"), {}, 4)) == "abca"


def test_a_project_that_has_a_place_waits_for_those_that_have_none() -> None:
    assert turns(take_turns(waiting(*"aab"), {"a": 1}, 2)) == "ba"


def test_of_projects_with_as_many_places_the_oldest_job_goes_first() -> None:
    assert turns(take_turns(waiting(*"cab"), {"a": 2, "b": 2, "c": 2, "d": 1}, 3)) == "cab"


@given(
    projects=st.lists(st.sampled_from("abc"), max_size=12),
    live=st.dictionaries(st.sampled_from("abcd"), st.integers(0, 4)),
    room=st.integers(0, 14),
)
def test_no_place_stays_empty_and_no_project_gets_ahead_of_one_that_still_waits(
    projects: list[str], live: dict[str, int], room: int
) -> None:
    jobs = waiting(*projects)
    chosen = take_turns(jobs, live, room)
    assert len(chosen) == min(room, len(jobs))
    assert len({job.id for job in chosen}) == len(chosen)
    left = [job.project for job in jobs if job not in chosen]
    has = {name: live.get(name, 0) + turns(chosen).count(name) for name in "abcd"}
    for name in set(left):
        assert all(has[job.project] <= has[name] + 1 for job in chosen)


async def test_within_a_project_a_higher_priority_goes_before_an_older_job(stage: Stage) -> None:
    train = await stage.upload()
    plain, urgent, idle = [
        await stage.submit(train=train, priority=priority) for priority in (0, 5, -5)
    ]
    late = await stage.submit(train=train)

    await stage.work(2)

    started = [request.metadata["job_id"] for request in stage.ray.requests]
    assert started == [urgent, plain]
    for job_id in started:
        stage.succeed(job_id)
    await stage.work(2)
    assert [request.metadata["job_id"] for request in stage.ray.requests][2:] == [late, idle]

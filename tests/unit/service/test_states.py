from collections.abc import Set
from itertools import product

import pytest

from service.states import TRANSITIONS, JobStatus, require_transition

ENDS = {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED}


def test_the_table_knows_every_status() -> None:
    assert set(TRANSITIONS) == set(JobStatus)


def test_a_status_is_terminal_exactly_if_nothing_follows_it() -> None:
    assert {status for status in JobStatus if status.is_terminal} == ENDS


@pytest.mark.parametrize(("before", "after"), list(product(JobStatus, JobStatus)))
def test_only_the_changes_in_the_table_are_allowed(before: JobStatus, after: JobStatus) -> None:
    if after in TRANSITIONS[before]:
        require_transition(before, after)
    else:
        with pytest.raises(ValueError, match=f"from {before} to {after}"):
            require_transition(before, after)


@pytest.mark.parametrize("status", JobStatus)
def test_every_status_is_reached_from_the_queue_and_leads_to_an_end(status: JobStatus) -> None:
    assert status in _reachable(JobStatus.QUEUED)
    assert _reachable(status) & ENDS


def test_a_running_job_goes_back_to_the_queue_by_a_pause_alone() -> None:
    without_pauses = _reachable(JobStatus.RUNNING, avoided={JobStatus.PAUSED})

    assert JobStatus.QUEUED not in without_pauses
    assert JobStatus.QUEUED in _reachable(JobStatus.RUNNING)


def test_a_cancellation_cannot_be_undone() -> None:
    assert _reachable(JobStatus.CANCELLING) == ENDS | {JobStatus.CANCELLING}


def _reachable(start: JobStatus, avoided: Set[JobStatus] = frozenset()) -> set[JobStatus]:
    seen = {start}
    frontier = [start]
    while frontier:
        new = TRANSITIONS[frontier.pop()] - seen - avoided
        seen |= new
        frontier += new
    return seen

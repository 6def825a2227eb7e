"""The states of a job and which may follow which: one pure table."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class JobStatus(StrEnum):
    """Where a job stands; the words are those of OpenAI's fine-tuning API where it has them."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended for good."""
        return not TRANSITIONS[self]

    @property
    def is_stopping(self) -> bool:
        """Whether the job's driver is asked to end."""
        return self in {JobStatus.PAUSING, JobStatus.CANCELLING}


TRANSITIONS: Mapping[JobStatus, frozenset[JobStatus]] = MappingProxyType(
    {
        # To pausing or cancelling once the dispatcher has claimed the job: a driver may exist by
        # then.
        JobStatus.QUEUED: frozenset(
            {
                JobStatus.RUNNING,
                JobStatus.PAUSING,
                JobStatus.PAUSED,
                JobStatus.CANCELLING,
                JobStatus.CANCELLED,
                JobStatus.FAILED,
            }
        ),
        JobStatus.RUNNING: frozenset(
            {JobStatus.PAUSING, JobStatus.CANCELLING, JobStatus.SUCCEEDED, JobStatus.FAILED}
        ),
        # To succeeded or failed as from cancelling.
        JobStatus.PAUSING: frozenset(
            {JobStatus.PAUSED, JobStatus.CANCELLING, JobStatus.SUCCEEDED, JobStatus.FAILED}
        ),
        # To cancelling if the job has an MLflow run, which is still to be closed.
        JobStatus.PAUSED: frozenset({JobStatus.QUEUED, JobStatus.CANCELLING, JobStatus.CANCELLED}),
        # To succeeded or failed when the driver recorded an outcome before it was stopped.
        JobStatus.CANCELLING: frozenset(
            {JobStatus.CANCELLED, JobStatus.SUCCEEDED, JobStatus.FAILED}
        ),
        JobStatus.SUCCEEDED: frozenset(),
        JobStatus.FAILED: frozenset(),
        JobStatus.CANCELLED: frozenset(),
    }
)
"""Every allowed change of status; there is no other."""


def require_transition(before: JobStatus, after: JobStatus) -> None:
    """Refuse a change of status that the table does not have.

    Raises:
        ValueError: If it does not; only a bug can cause this.
    """
    if after not in TRANSITIONS[before]:
        raise ValueError(f"a job cannot go from {before} to {after}")

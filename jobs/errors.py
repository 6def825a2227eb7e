"""Failures of a driver that a user can act on; each carries a stable code and one sentence."""

from typing import ClassVar

from workers.specs import FailureCode


class JobError(Exception):
    """Base of the drivers' errors; the message is the only argument, so that it pickles."""

    code: ClassVar[FailureCode]


class ResourcesUnavailableError(JobError):
    """The cluster can never place what the job asks for."""

    code = FailureCode.RESOURCES_UNAVAILABLE


class WorkersLostError(JobError):
    """The worker group died more often than it is restarted."""

    code = FailureCode.WORKERS_LOST


class NoTrialCompletedError(JobError):
    """A search ended without a single trial that trained to its end."""

    code = FailureCode.NO_TRIAL_COMPLETED


class NoMethodCompletedError(JobError):
    """A comparison ended without a single method that trained to its end with all seeds."""

    code = FailureCode.NO_METHOD_COMPLETED


class TrainingFailedError(JobError):
    """A worker met bad input or a numerical failure; takes over that failure's own code."""

    def __init__(self, message: str, code: str = FailureCode.WORKERS_LOST) -> None:
        super().__init__(message, code)
        self.code = FailureCode(code)  # type: ignore[misc]  # per instance here

    def __str__(self) -> str:
        return str(self.args[0])


class StoppedEarlyError(Exception):
    """The training was asked to stop and did, with a checkpoint to go on from; no failure."""

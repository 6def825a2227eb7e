"""Telling a job's followers why its worker group starts again."""

import logging
from collections.abc import Mapping

from mlflow import MlflowClient
from ray.train import UserCallback

from jobs.tickets import JobTicket, RunTag
from jobs.tracking import RunWriter

logger = logging.getLogger(__name__)

_LONGEST_REASON = 500


class RestartNotes(UserCallback):
    """Notes in the driver's log and in the run's tags how workers were lost.

    Ray Train calls it in its controller, a process of its own, which must not wait for MLflow.
    """

    def __init__(self, ticket: JobTicket) -> None:
        self._ticket = ticket
        self._num_notes = 0
        self._writer: RunWriter | None = None  # made in the controller: threads do not travel

    def after_exception(
        self, run_context: object, worker_exceptions: Mapping[int, Exception]
    ) -> None:
        """Note each worker that failed."""
        if self._writer is None:
            client = MlflowClient(tracking_uri=self._ticket.tracking_uri)
            self._writer = RunWriter(client, self._ticket.run_id)
        for worker, error in sorted(worker_exceptions.items()):
            reason = f"worker {worker} failed: {last_line(str(error))}"[:_LONGEST_REASON]
            logger.warning("%s", reason)
            self._num_notes += 1
            number = f"{self._ticket.attempt:04}.{self._num_notes:04}"
            self._writer.write_tag(f"{RunTag.RESTART}.{number}", reason)


def last_line(text: str) -> str:
    """The end of an error's text, which in those of Ray says what happened."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no detail"

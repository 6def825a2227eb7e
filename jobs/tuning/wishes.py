"""What users wish of a search's trials, from MLflow tags to the trials, through an actor."""

import logging

import ray
from mlflow.exceptions import MlflowException
from ray.actor import ActorHandle

from jobs.polling import Poller
from jobs.tickets import JobTicket, RunTag, TrialState
from jobs.tuning.trial_runs import TrialRuns, state_of

logger = logging.getLogger(__name__)

_POLL_INTERVAL_S = 2.0


class TrialWishes:
    """Which trials are to end; an actor that lives as long as its driver."""

    def __init__(self) -> None:
        self._cancelled: set[str] = set()
        self._signals: dict[str, ActorHandle] = {}

    def pass_on(self, trial_id: str, stop: ActorHandle) -> None:
        """From now on, pass the wish to end a trial on to its own `StopSignal`."""
        self._signals[trial_id] = stop

    def cancel(self, trial_ids: set[str]) -> None:
        """Ask trials to end."""
        for trial_id in trial_ids - self._cancelled:
            if trial_id in self._signals:
                self._signals[trial_id].request.remote()
        self._cancelled |= trial_ids

    def is_cancelled(self, trial_id: str) -> bool:
        """Whether a trial is to end."""
        return trial_id in self._cancelled


class WishReader:
    """Passes on what users wish, from a thread of the driver."""

    def __init__(self, ticket: JobTicket, wishes: ActorHandle) -> None:
        self._runs = TrialRuns(ticket)
        self._wishes = wishes
        self._poller = Poller("wish-reader", self._look, _POLL_INTERVAL_S)

    def close(self) -> None:
        """Read no more."""
        self._poller.close()

    def _look(self) -> bool:
        try:
            cancelled = {
                run.data.tags[RunTag.TRIAL_ID]
                for run in self._runs.all()
                if RunTag.CANCEL_REQUESTED in run.data.tags and state_of(run) is TrialState.RUNNING
            }
        except MlflowException as error:
            logger.warning("MLflow is away, wishes to cancel trials wait: %s", error)
            return False
        if cancelled:
            ray.get(self._wishes.cancel.remote(cancelled))
        return False

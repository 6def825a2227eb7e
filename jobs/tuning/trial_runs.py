"""The trials of a search as child runs in MLflow, the only record of them: written and read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import Param, Run, RunStatus
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from jobs.child_runs import find_children
from jobs.search_space import Value
from jobs.tickets import JobTicket, RunTag, TrialState, objective_error, objective_metric

_LONGEST_REASON = 1000
_RUN_STATUS = {
    TrialState.RUNNING: RunStatus.RUNNING,
    TrialState.COMPLETED: RunStatus.FINISHED,
    TrialState.STOPPED: RunStatus.FINISHED,
    TrialState.CANCELLED: RunStatus.KILLED,
    TrialState.FAILED: RunStatus.FAILED,
}


@dataclass(frozen=True)
class TrialOutcome:
    """What a trial came to."""

    state: TrialState
    reason: str | None = None
    objectives: Mapping[str, float] | None = None
    """Mean over the seeds, by metric."""
    errors: Mapping[str, float] | None = None
    """Standard error of the mean, by metric; none of one seed."""


class TrialRuns:
    """The child runs of one search."""

    def __init__(self, ticket: JobTicket) -> None:
        self.client = MlflowClient(tracking_uri=ticket.tracking_uri)
        self._parent_id = ticket.run_id
        self._job_id = ticket.job_id
        self.parent = self.client.get_run(ticket.run_id)
        self._experiment_id = self.parent.info.experiment_id

    @property
    def started_at(self) -> float:
        """When the search began, in seconds since 1970."""
        return float(self.parent.info.start_time) / 1000

    def open(self, trial_id: str, values: Mapping[str, Value]) -> Run:
        """The run of a trial, made on the first call; the values that hold now are noted."""
        written = json.dumps(dict(values))
        for run in find_children(
            self.client, self.parent, f"tags.`{RunTag.TRIAL_ID}` = '{trial_id}'"
        ):
            if run.data.tags.get(RunTag.TRIAL_VALUES) != written:
                self.client.set_tag(run.info.run_id, RunTag.TRIAL_VALUES, written)
            if state_of(run) in {TrialState.STOPPED, TrialState.CANCELLED}:  # of a paused search
                self.client.set_tag(run.info.run_id, RunTag.TRIAL_STATE, TrialState.RUNNING)
                self.client.update_run(run.info.run_id, RunStatus.to_string(RunStatus.RUNNING))
            return run
        run = self.client.create_run(
            self._experiment_id,
            run_name=trial_id,
            tags={
                MLFLOW_PARENT_RUN_ID: self._parent_id,
                RunTag.JOB_ID: self._job_id,
                RunTag.TRIAL_ID: trial_id,
                RunTag.TRIAL_VALUES: written,
                RunTag.TRIAL_STATE: TrialState.RUNNING,
            },
        )
        params = [Param(field, str(value)) for field, value in values.items()]
        self.client.log_batch(run.info.run_id, params=params)
        return run

    def open_below(self, parent: Run, suffix: str) -> str:
        """Id of the run of a further training, such as one with another seed, below a run."""
        parent_id, name = parent.info.run_id, f"{parent.info.run_name}-{suffix}"
        found = find_children(self.client, parent, f"attributes.run_name = '{name}'")
        if found:
            return str(found[0].info.run_id)
        tags = {MLFLOW_PARENT_RUN_ID: parent_id, RunTag.JOB_ID: self._job_id}
        run = self.client.create_run(self._experiment_id, run_name=name, tags=tags)
        return str(run.info.run_id)

    def all(self) -> list[Run]:
        """Every trial's run, oldest first."""
        return [
            run
            for run in find_children(self.client, self.parent)
            if RunTag.TRIAL_ID in run.data.tags
        ]

    def close(self, run_id: str, outcome: TrialOutcome) -> None:
        """Record what a trial came to; the state last, so that who sees it sees the rest."""
        for metric, value in (outcome.objectives or {}).items():
            self.client.log_metric(run_id, objective_metric(metric), value)
        for metric, value in (outcome.errors or {}).items():
            self.client.log_metric(run_id, objective_error(metric), value)
        if outcome.reason:
            self.client.set_tag(run_id, RunTag.TRIAL_REASON, outcome.reason[:_LONGEST_REASON])
        self.client.set_tag(run_id, RunTag.TRIAL_STATE, outcome.state)
        self.client.set_terminated(run_id, RunStatus.to_string(_RUN_STATUS[outcome.state]))


def state_of(run: Run) -> TrialState:
    """Where the trial of a run stands."""
    return TrialState(run.data.tags.get(RunTag.TRIAL_STATE, TrialState.RUNNING))

"""How far a search is: what its driver tells of it while trials come and go."""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from mlflow import MlflowClient
from ray.tune import Callback
from ray.tune.experiment import Trial

from jobs.search_report.trial_table import TrialRecord, pareto_set
from jobs.search_specs import SearchSpec
from jobs.tickets import JobTicket, RunTag, TrialState, objective_metric
from jobs.tracking import RunWriter
from jobs.tuning.trial_reporter import IS_COMPLETE
from workers.specs import RunMetric

logger = logging.getLogger(__name__)


class SearchProgress(Callback):
    """Counts trials that ended and names the best, in the search's own run; never waits for MLflow.

    Ray Tune writes it to disk with the experiment, so it holds no connection until it is called.
    """

    def __init__(self, ticket: JobTicket) -> None:
        self._ticket = ticket.model_dump_json()
        self._writer: RunWriter | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_writer": None}

    def on_trial_complete(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: object
    ) -> None:
        """Count a trial that ended by itself or was stopped."""
        self._tell(trials, trial)

    def on_trial_error(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: object
    ) -> None:
        """Count a trial that failed."""
        logger.warning("%s failed", trial.custom_trial_name)
        self._tell(trials, trial)

    def on_experiment_end(self, trials: Sequence[Trial], **info: object) -> None:
        """Send what waits."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _tell(self, trials: Sequence[Trial], ending: Trial) -> None:
        ticket = JobTicket.model_validate_json(self._ticket)
        spec = ticket.spec
        assert isinstance(spec, SearchSpec)
        if self._writer is None:
            self._writer = RunWriter(MlflowClient(tracking_uri=ticket.tracking_uri), ticket.run_id)
        ended = [trial for trial in trials if trial is ending or trial.is_finished()]
        values: dict[str, float] = {
            RunMetric.STEP: len(ended),
            RunMetric.TOTAL_STEPS: spec.num_trials,
        }
        best = pareto_set([_record(trial, spec) for trial in ended], spec.objectives)
        if best:
            for metric, value in best[0].objectives.items():
                values[objective_metric(metric)] = value
            names = json.dumps([trial.trial_id for trial in best])
            self._writer.write_tag(RunTag.BEST_TRIALS, names)
        self._writer.write(len(ended), values)


def _record(trial: Trial, spec: SearchSpec) -> TrialRecord:
    result: Mapping[str, Any] = trial.last_result or {}
    is_complete = bool(result.get(IS_COMPLETE))
    names = [str(objective.metric) for objective in spec.objectives]
    return TrialRecord(
        trial_id=str(trial.custom_trial_name),
        values=trial.config["values"],
        state=TrialState.COMPLETED if is_complete else TrialState.STOPPED,
        objectives={name: result[name] for name in names} if is_complete else {},
    )

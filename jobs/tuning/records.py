"""The trials of a search as its report reads them, from MLflow."""

import json
from collections.abc import Sequence
from pathlib import Path

from mlflow.entities import Run
from ray.tune import ResultGrid

from jobs.restart_notes import last_line
from jobs.search_report.trial_table import TrialRecord
from jobs.search_specs import SearchSpec
from jobs.tickets import RunTag, TrialState, objective_error, objective_metric
from jobs.tuning.trial_runs import TrialOutcome, TrialRuns, state_of
from workers.specs import RunMetric

_CURVES = (RunMetric.LOSS, RunMetric.EVAL_LOSS, RunMetric.CURVATURE)


def close_open_runs(runs: TrialRuns, results: ResultGrid, reason: str) -> None:
    """Record the end of trials that could not do so themselves.

    Args:
        runs: Of the trials.
        results: What Ray Tune knows of each.
        reason: Why those ended that did not fail.
    """
    errors = {Path(result.path).name: result.error for result in results}
    for run in runs.all():
        if state_of(run) is TrialState.RUNNING:
            error = errors.get(run.data.tags[RunTag.TRIAL_ID])
            outcome = (
                TrialOutcome(TrialState.FAILED, last_line(str(error)))
                if error
                else TrialOutcome(TrialState.STOPPED, reason)
            )
            runs.close(run.info.run_id, outcome)


def read_records(runs: TrialRuns, spec: SearchSpec) -> list[TrialRecord]:
    """Every trial with its curves, oldest first."""
    return [_record(runs, run, spec) for run in runs.all()]


def _record(runs: TrialRuns, run: Run, spec: SearchSpec) -> TrialRecord:
    tags, metrics, info = run.data.tags, run.data.metrics, run.info
    names = [str(objective.metric) for objective in spec.objectives]
    curves: dict[str, Sequence[tuple[int, float]]] = {}
    for name in _CURVES:
        if name in metrics:
            history = runs.client.get_metric_history(info.run_id, name)
            curves[str(name)] = sorted((point.step, point.value) for point in history)
    return TrialRecord(
        trial_id=tags[RunTag.TRIAL_ID],
        values=json.loads(tags[RunTag.TRIAL_VALUES]),
        state=state_of(run),
        objectives={
            n: metrics[objective_metric(n)] for n in names if objective_metric(n) in metrics
        },
        errors={n: metrics[objective_error(n)] for n in names if objective_error(n) in metrics},
        curves=curves,
        steps=int(metrics.get(RunMetric.STEP, 0)),
        seconds=((info.end_time or info.start_time) - info.start_time) / 1000,
        reason=tags.get(RunTag.TRIAL_REASON),
    )

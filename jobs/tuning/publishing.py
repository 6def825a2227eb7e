"""What a search leaves: registered adapters, and its report with plots."""

from collections.abc import Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from ray.actor import ActorHandle
from ray.train import Checkpoint
from ray.tune import Result, ResultGrid

from jobs.distributed import fit
from jobs.lineage import lineage_of
from jobs.registry import register_adapter
from jobs.report_files import report_files
from jobs.search_report.markdown import to_markdown
from jobs.search_report.plots.gallery import plots
from jobs.search_report.report import build_report
from jobs.search_report.trial_table import TrialRecord
from jobs.search_specs import SearchSpec
from jobs.tickets import JobTicket, RunTag, TrialState
from jobs.tuning.trial_reporter import CHECKPOINT_PATH
from jobs.tuning.trial_runs import TrialOutcome, TrialRuns
from workers.checkpoint import ADAPTER_FOLDER

_REFIT = "refit"


def register_trials(
    ticket: JobTicket, spec: SearchSpec, winners: Sequence[TrialRecord], results: ResultGrid
) -> ModelVersion:
    """Register the adapters of the best trials, the best last, so that it is the newest version.

    Returns:
        The best one's version.
    """
    client = MlflowClient(tracking_uri=ticket.tracking_uri)
    run_ids = {run.data.tags[RunTag.TRIAL_ID]: run.info.run_id for run in TrialRuns(ticket).all()}
    checkpoints = {Path(result.path).name: _checkpoint_of(result) for result in results}
    for place, winner in reversed(list(enumerate(winners))):
        tuned = spec.trial_spec(winner.values)
        outcome = {name.replace("/", "_"): value for name, value in winner.objectives.items()}
        lineage = lineage_of(ticket, tuned, {**outcome, "steps": winner.steps}) | {
            RunTag.TRIAL_ID: winner.trial_id,
            "search_place": str(place + 1),
        }
        checkpoint = checkpoints[winner.trial_id]
        assert checkpoint is not None, "a trial that has completed has its last checkpoint"
        with checkpoint.as_directory() as folder:
            version = register_adapter(
                client,
                run_ids[winner.trial_id],
                Path(folder) / ADAPTER_FOLDER,
                spec.registered_model_name,
                lineage,
                spec.registry.alias if place == 0 and not spec.refit else None,
            )
    return version


def register_refit(
    ticket: JobTicket, spec: SearchSpec, winner: TrialRecord, stop: ActorHandle
) -> ModelVersion:
    """Train the winner at full length, and register that."""
    runs = TrialRuns(ticket)
    run_id = runs.open_below(runs.parent, _REFIT)
    full = spec.trial_spec(winner.values, is_refit=True)
    inner = ticket.model_copy(update={"spec": full, "run_id": run_id})
    fitted = fit(inner, stop, f"{ticket.job_id}-{_REFIT}")
    lineage = lineage_of(ticket, full, fitted.outcome) | {
        RunTag.TRIAL_ID: winner.trial_id,
        "search_place": _REFIT,
    }
    with fitted.checkpoint.as_directory() as folder:
        version = register_adapter(
            runs.client,
            run_id,
            Path(folder) / ADAPTER_FOLDER,
            spec.registered_model_name,
            lineage,
            spec.registry.alias,
        )
    runs.close(run_id, TrialOutcome(TrialState.COMPLETED))
    return version


def publish_report(
    ticket: JobTicket, spec: SearchSpec, records: Sequence[TrialRecord], seconds: float
) -> None:
    """Write the report and its plots to the search's run.

    Args:
        ticket: The job's.
        spec: Its spec.
        records: All trials.
        seconds: Time that the search took.
    """
    client = MlflowClient(tracking_uri=ticket.tracking_uri)
    report = build_report(spec, records, seconds)
    drawn = plots(spec, records, report.importance)
    with report_files(client, ticket.run_id, spec.kind, report, to_markdown(report), drawn):
        pass


def _checkpoint_of(result: Result) -> Checkpoint | None:
    path = (result.metrics or {}).get(CHECKPOINT_PATH)
    return Checkpoint(path) if path else result.checkpoint

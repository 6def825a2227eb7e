"""What a comparison leaves: adapters in their runs, every answer, and its report with plots."""

import logging
from collections.abc import Sequence

from mlflow import MlflowClient

from jobs.compare_report.markdown import to_markdown
from jobs.compare_report.plots.gallery import plots
from jobs.compare_report.report import CompareReport
from jobs.compare_report.sentences import outline
from jobs.comparison.schedule import Records
from jobs.comparison.training import Training
from jobs.comparison.training_runs import TrainingRuns
from jobs.report_files import report_files
from jobs.stored_checkpoints import lend_stored, remove_run
from jobs.tickets import JobTicket, RunTag
from workers.checkpoint import ADAPTER_FOLDER
from workers.predictions import Prediction, write_table

logger = logging.getLogger(__name__)

_FOLDER = "compare"
_LONGEST_SUMMARY = 400


def publish_adapters(
    ticket: JobTicket, runs: TrainingRuns, records: Records, kept: Sequence[Training]
) -> dict[str, str]:
    """Log the adapters that are asked questions to their runs, and remove all checkpoints.

    Args:
        ticket: The job's.
        runs: Of the trainings.
        records: Of all trainings.
        kept: Those at a chosen rate.

    Returns:
        The adapter's MLflow URI by the training's name.
    """
    uris = {}
    for training in kept:
        run_id, folder = runs.open(training), training.folder_of(ticket.job_id)
        checkpoint = records[training.name].checkpoint
        with lend_stored(ticket.storage_path, f"{folder}/{checkpoint}") as stored:
            if stored is not None:  # else an earlier attempt has come past here
                runs.client.log_artifacts(run_id, str(stored / ADAPTER_FOLDER), ADAPTER_FOLDER)
        uris[training.name] = f"runs:/{run_id}/{ADAPTER_FOLDER}"
    for name in records:
        remove_run(ticket.storage_path, f"{ticket.job_id}-{name}")
    return uris


def publish_report(
    ticket: JobTicket, report: CompareReport, predictions: Sequence[Prediction]
) -> None:
    """Write report, plots, answers and means to the comparison's run, the summary last.

    Args:
        ticket: The job's.
        report: What the answers came to.
        predictions: The answers, and the gold answers' likelihoods.
    """
    client = MlflowClient(tracking_uri=ticket.tracking_uri)
    page, drawn = to_markdown(report), plots(report)
    with report_files(client, ticket.run_id, _FOLDER, report, page, drawn) as folder:
        write_table(predictions, folder / "predictions.parquet")
    for metric, value in means(report).items():
        client.log_metric(ticket.run_id, metric, value)
    client.set_tag(ticket.run_id, RunTag.SUMMARY, summary(report))


def means(report: CompareReport) -> dict[str, float]:
    """Metrics of the comparison's run: of every method and task the means over seeds."""
    metric_of = {task.name: task.metric for task in report.tasks}
    values = {}
    for method in report.methods:
        of_method = f"{_FOLDER}/{method.method}"
        for task, score in method.scores.items():
            values[f"{of_method}/{task}/{metric_of[task]}"] = score.value
        for task, nll in method.nlls.items():
            values[f"{of_method}/{task}/nll"] = nll.value
    return values


def summary(report: CompareReport) -> str:
    """The findings in one line."""
    line = outline(report.spec.reference, report.differences) or report.findings[0]
    if len(line) <= _LONGEST_SUMMARY:
        return line
    return f"{line[: _LONGEST_SUMMARY - 1]}…"

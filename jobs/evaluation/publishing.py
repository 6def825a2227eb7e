"""What an evaluation leaves in MLflow: metrics, tags of versions, predictions and its report."""

import re
from collections.abc import Sequence

from mlflow import MlflowClient

from jobs.evaluation.markdown import to_markdown
from jobs.evaluation.pins import version_in
from jobs.evaluation.report import EvaluateReport
from jobs.report_files import report_files
from jobs.tickets import JobTicket
from jobs.tracking import RunWriter
from workers.predictions import Prediction, write_table


def metrics_of(report: EvaluateReport) -> dict[str, float]:
    """Metrics `evaluation/TASK/MODEL/METRIC`, averages under the task `macro_average`."""
    scores = {
        _metric_name(each.task, each.model, each.metric): each.value
        for each in report.result.scores
    }
    averages = {
        _metric_name("macro_average", each.model, each.metric): each.value
        for each in report.result.macro_averages
    }
    return scores | averages


def publish_report(
    ticket: JobTicket,
    report: EvaluateReport,
    predictions: Sequence[Prediction],
    writer: RunWriter,
) -> None:
    """Write everything but the summary, which says that the job is done.

    Args:
        ticket: The job's.
        report: What it found.
        predictions: All of them.
        writer: Of the job's run.
    """
    writer.write(0, metrics_of(report))
    client = MlflowClient(tracking_uri=ticket.tracking_uri)
    kind, page = report.spec.kind, to_markdown(report)
    with report_files(client, ticket.run_id, kind, report, page) as folder:
        write_table(predictions, folder / "predictions.parquet")
    _tag_versions(ticket, report, client)


def _tag_versions(ticket: JobTicket, report: EvaluateReport, client: MlflowClient) -> None:
    for each in report.result.scores:
        version = version_in(report.pins.models[each.model])
        if version is not None:
            low, high = each.interval
            client.set_model_version_tag(
                version.model,
                version.version,
                f"evaluation.{each.task}.{each.metric}",
                f"{each.value:.4f} [{low:.4f}, {high:.4f}], {each.num_rows} rows, {ticket.job_id}",
            )


def _metric_name(task: str, model: str, metric: str) -> str:
    """MLflow takes no @ in the name of a metric."""
    return "/".join(re.sub(r"[^\w.-]", "_", part) for part in ("evaluation", task, model, metric))

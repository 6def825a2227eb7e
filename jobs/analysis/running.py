"""One analysis from beginning to end: measured, told of, and written to its run."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from mlflow import MlflowClient
from ray.actor import ActorHandle

from jobs.analysis.curvatures import curvature_histories
from jobs.analysis.measuring import AnalysisTask, measure
from jobs.analysis_report.figures import figures
from jobs.analysis_report.markdown import to_markdown
from jobs.analysis_report.page import to_html
from jobs.analysis_report.plots.gallery import plots
from jobs.analysis_report.report import AnalysisReport, curvature_series, with_findings
from jobs.report_files import report_files
from jobs.tickets import JobTicket
from jobs.tracking import RunWriter
from workers.errors import DataInvalidError
from workers.specs import HubDatasetSpec

FOLDER = "analyze"
"""Artifacts of a run that hold an analysis."""

_REPORT = f"{FOLDER}/report.json"


def run_analysis(
    ticket: JobTicket,
    task: AnalysisTask,
    stop: ActorHandle,
    on_progress: Callable[[RunWriter, int, int], None] = lambda _, __, ___: None,
) -> AnalysisReport:
    """Measure what is asked for and write report, plots and metrics to the ticket's run.

    The report grows there part by part, so that another attempt measures only what is missing.

    Args:
        ticket: Whose run it is.
        task: The analysis; an adapter from MLflow is named by its version, not by an alias.
        stop: The driver's `StopSignal`.
        on_progress: Told the parts done, and of how many.

    Raises:
        JobError: As `measure` does.
        WorkerError: As `measure` does, or if no part could be measured on the rows.
        StoppedEarlyError: If the analysis was asked to stop.
    """
    client = MlflowClient(tracking_uri=ticket.tracking_uri)
    writer = RunWriter(client, ticket.run_id)
    parts = task.spec.parts

    def keep(report: AnalysisReport) -> None:
        writer.write_document(_REPORT, report.model_dump_json(indent=2))
        on_progress(writer, sum(map(report.has, parts)), len(parts))

    begun = _begun(client, ticket.run_id, _empty_report(task))
    on_progress(writer, sum(map(begun.has, parts)), len(parts))
    try:
        report = measure(task, begun, stop, keep)
        if set(report.left_out) >= set(parts):
            reasons = "; ".join(f"{part}: {reason}" for part, reason in report.left_out.items())
            raise DataInvalidError(f"nothing could be measured: {reasons}")
        if task.subject.adapter is not None:
            histories = curvature_histories(client, task.subject.adapter)
            report = report.model_copy(update={"curvatures": curvature_series(histories)})
        report = with_findings(report)
        writer.write(0, figures(report))
    finally:
        writer.close()
    _publish(client, ticket.run_id, report)
    return report


def _empty_report(task: AnalysisTask) -> AnalysisReport:
    data = task.subject.data
    return AnalysisReport(
        base_model=task.subject.base_model,
        adapter=task.subject.adapter,
        data=data.model_dump_json(exclude_none=True) if isinstance(data, HubDatasetSpec) else data,
    )


def _begun(client: MlflowClient, run_id: str, empty: AnalysisReport) -> AnalysisReport:
    """What an earlier attempt measured, if it is of the same models and rows."""
    if not any(found.path == _REPORT for found in client.list_artifacts(run_id, FOLDER)):
        return empty
    with tempfile.TemporaryDirectory() as folder:
        path = Path(client.download_artifacts(run_id, _REPORT, folder))
        begun = AnalysisReport.model_validate_json(path.read_text(encoding="utf-8"))
    identity = {"base_model", "adapter", "data"}
    is_same = begun.model_dump(include=identity) == empty.model_dump(include=identity)
    return begun if is_same else empty


def _publish(client: MlflowClient, run_id: str, report: AnalysisReport) -> None:
    drawn = plots(report)
    with report_files(client, run_id, FOLDER, report, to_markdown(report), drawn) as folder:
        (folder / "report.html").write_text(to_html(report, drawn), "utf-8")

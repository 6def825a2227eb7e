"""The analysis driver: the geometry of a model, and what an adapter changes of it.

Run as `python -m jobs.analyze` by Ray's Jobs API, with its ticket in the environment.
"""

import logging
import sys
from pathlib import Path

import ray
from mlflow import MlflowClient

from jobs.analysis.measuring import AnalysisTask
from jobs.analysis.running import run_analysis
from jobs.analysis_report.headline import headline
from jobs.analyze_specs import AnalyzeSpec
from jobs.cluster import connect
from jobs.entrypoint import run_driver
from jobs.stop_signal import StopSignal, pass_on_sigterm
from jobs.tickets import JobTicket, RunTag
from jobs.tracking import RunWriter
from workers.analyze import Subject
from workers.errors import AdapterUnusableError
from workers.mlflow_download import pin
from workers.specs import RunMetric

logger = logging.getLogger(__name__)


def analyze(ticket: JobTicket) -> None:
    """Measure a model, and report.

    Raises:
        JobError: As `jobs.analysis.running.run_analysis` does.
        WorkerError: As that, or if there is no such adapter.
        StoppedEarlyError: If the analysis was asked to stop; the parts that are done are kept.
    """
    connect(ticket)
    stop = ray.remote(num_cpus=0)(StopSignal).remote()
    pass_on_sigterm(stop)
    report = run_analysis(ticket, _task_of(ticket), stop, _tell)
    client = MlflowClient(tracking_uri=ticket.tracking_uri)
    client.set_tag(ticket.run_id, RunTag.SUMMARY, headline(report))
    logger.info("%s", " ".join(report.findings))


def _task_of(ticket: JobTicket) -> AnalysisTask:
    spec = ticket.spec
    assert isinstance(spec, AnalyzeSpec)
    adapter = spec.model.adapter
    if adapter is not None:
        # An alias may move while a job is paused; its version does not.
        adapter = pin(adapter, "model.adapter", AdapterUnusableError)
    subject = Subject(
        base_model=spec.base_model,
        adapter=adapter,
        data=spec.data,
        files={file_id: Path(ref.uri) for file_id, ref in ticket.files.items()},
        columns={str(field): name for field, name in spec.columns.items()},
        chat_template=spec.chat_template,
        dtype=spec.dtype,
    )
    return AnalysisTask(subject, spec.analysis, spec.resources)


def _tell(writer: RunWriter, num_done: int, num_parts: int) -> None:
    writer.write(num_done, {RunMetric.STEP: num_done, RunMetric.TOTAL_STEPS: num_parts})


if __name__ == "__main__":
    sys.exit(run_driver(analyze))

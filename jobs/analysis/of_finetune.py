"""The analysis that a fine-tune asks for: what its adapter changes, on the rows it trained on."""

import logging
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion
from ray.actor import ActorHandle
from ray.exceptions import RayError

from jobs.analysis.measuring import AnalysisTask
from jobs.analysis.running import run_analysis
from jobs.analysis_report.headline import headline
from jobs.errors import JobError
from jobs.finetune_specs import FinetuneSpec
from jobs.tickets import JobTicket
from workers.analysis_spec import AnalysisSpec
from workers.analyze import Subject
from workers.errors import WorkerError

logger = logging.getLogger(__name__)


def analyze_finetuned(
    ticket: JobTicket, spec: FinetuneSpec, version: ModelVersion, stop: ActorHandle
) -> str | None:
    """Measure base model and registered adapter on the rows of `data.train`.

    An analysis that fails loses no adapter: what went wrong is the summary, and the log has more.

    Args:
        ticket: The fine-tune's; its run gets the report.
        spec: Its spec.
        version: What it registered.
        stop: The driver's `StopSignal`.

    Returns:
        One line on what was found; None if no analysis is asked for.

    Raises:
        StoppedEarlyError: If the job was asked to stop; the parts that are done are kept.
    """
    if spec.analysis is None:
        return None
    try:
        return headline(run_analysis(ticket, _task_of(ticket, spec, spec.analysis, version), stop))
    except (JobError, WorkerError, RayError) as error:
        logger.exception("the adapter is registered, but its analysis failed")
        return f"the adapter is registered, but its analysis failed: {error}"[:400]


def _task_of(
    ticket: JobTicket, spec: FinetuneSpec, analysis: AnalysisSpec, version: ModelVersion
) -> AnalysisTask:
    subject = Subject(
        base_model=spec.base_model,
        adapter=f"models:/{version.name}/{version.version}",
        data=spec.data.train,
        files={file_id: Path(ref.uri) for file_id, ref in ticket.files.items()},
        columns={str(field): name for field, name in spec.data.columns.items()},
        chat_template=spec.data.chat_template,
        dtype=spec.training.dtype,
        quantization=spec.training.quantization,
    )
    one_worker = spec.resources.model_copy(update={"num_workers": 1})
    return AnalysisTask(subject, analysis, one_worker)

"""Measuring a model part by part on one Ray worker, from the driver's side and on the worker."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray import ObjectRef
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError
from transformers.utils.logging import disable_progress_bar

from hyplora.errors import AnalysisError
from jobs.analysis_report.report import AnalysisReport, count_histogram
from jobs.errors import StoppedEarlyError, WorkersLostError
from jobs.placement import live_nodes, plan_workers
from jobs.restart_notes import last_line
from workers.analysis_spec import AnalysisPart, AnalysisSpec
from workers.analyze import Analyst, Subject
from workers.errors import OutOfMemoryError, WorkerError
from workers.specs import ResourcesSpec

_RESTARTS = 2
_STOP_POLL_S = 0.5


@dataclass(frozen=True)
class AnalysisTask:
    """An analysis, ready to be run."""

    subject: Subject
    """What is looked at."""

    spec: AnalysisSpec
    """What is measured, and how exactly."""

    resources: ResourcesSpec
    """What its worker reserves."""


def measure(
    task: AnalysisTask,
    begun: AnalysisReport,
    stop: ActorHandle,
    on_part: Callable[[AnalysisReport], None],
) -> AnalysisReport:
    """Measure the parts that a report lacks, on one worker that Ray restarts if it dies.

    Args:
        task: The analysis.
        begun: What an earlier attempt has measured.
        stop: The driver's `StopSignal`.
        on_part: Told of the report after each part.

    Returns:
        The report, without findings.

    Raises:
        ResourcesUnavailableError: If the cluster can never place the worker.
        WorkerError: If the base model, the adapter or the rows cannot be used.
        WorkersLostError: If the worker died more often than it is restarted.
        StoppedEarlyError: If the analysis was asked to stop.
    """
    bundle = plan_workers(task.resources, live_nodes()).resources_per_worker
    worker = (
        ray.remote(_AnalysisWorker)
        .options(
            num_cpus=bundle["CPU"],
            num_gpus=bundle.get("GPU", 0),
            max_restarts=_RESTARTS,
            max_task_retries=_RESTARTS,
        )
        .remote(task, "cuda" if bundle.get("GPU") else "cpu")
    )
    report = begun
    try:
        for part in task.spec.parts:
            if not report.has(part):
                fields = _await(worker.measure.remote(part), stop, part)
                left_out = report.left_out | fields.pop("left_out", {})
                report = report.model_copy(update={**fields, "left_out": left_out})
                on_part(report)
    finally:
        ray.kill(worker)
    return report


def _await(ref: ObjectRef, stop: ActorHandle, part: AnalysisPart) -> dict[str, Any]:
    """What the worker returns, unless a stop is asked for first; what is measured is not lost."""
    while True:
        if ray.get(stop.poll.remote()):
            raise StoppedEarlyError(f"stopped before {part} was measured")
        if ray.wait([ref], timeout=_STOP_POLL_S)[0]:
            break
    try:
        return ray.get(ref)
    except RayTaskError as error:
        if isinstance(error.cause, WorkerError):
            raise error.cause from error
        raise
    except RayError as error:
        raise WorkersLostError(
            f"the worker died {_RESTARTS + 1} times while {part} was measured; the job's log shows "
            f"why: {last_line(str(error))}; if its memory was too small, try dtype bfloat16 or "
            "analysis.max_points"
        ) from error


class _AnalysisWorker:
    """An actor that keeps a model between parts; started anew, it loads it again."""

    def __init__(self, task: AnalysisTask, device: str) -> None:
        torch.set_num_threads(task.resources.cpus_per_worker)
        disable_progress_bar()
        self._analyst = Analyst(task.subject, task.spec, torch.device(device))

    def measure(self, part: AnalysisPart) -> dict[str, Any]:
        """Fields of the report that a part fills."""
        try:
            return self._measure(part)
        except AnalysisError as error:
            return {"left_out": {part: str(error)}}
        except torch.OutOfMemoryError as error:
            raise OutOfMemoryError(
                f"a worker ran out of memory while {part} was measured ({str(error).split('. ')[0]}"
                "); try dtype bfloat16, shorter rows or analysis.max_points"
            ) from error

    def _measure(self, part: AnalysisPart) -> dict[str, Any]:
        analyst = self._analyst
        match part:
            case "hyperbolicity":
                return {part: analyst.hyperbolicity(), "prompts": analyst.about_prompts()}
            case "power_law":
                histogram = count_histogram(analyst.token_counts.tolist())
                return {part: analyst.power_law(), "count_histogram": histogram}
            case "norms":
                return {part: analyst.norms()}
            case "word_groups":
                return {part: analyst.word_groups()}
            case "adapter_effect":
                return {part: analyst.adapter_effect(), "prompts": analyst.about_prompts()}

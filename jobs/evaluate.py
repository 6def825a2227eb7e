"""The evaluation driver: Ray workers ask the models, MLflow gets scores, predictions and a report.

Run as `python -m jobs.evaluate` by Ray's Jobs API, with its ticket in the environment.
"""

import logging
import sys
from contextlib import closing

import ray
from mlflow import MlflowClient

from jobs.cluster import connect
from jobs.entrypoint import run_driver
from jobs.evaluate_specs import EvaluateSpec
from jobs.evaluation.asked import Asked
from jobs.evaluation.asking import ask
from jobs.evaluation.pins import Pins, decide_pins
from jobs.evaluation.promotion import promote
from jobs.evaluation.publishing import publish_report
from jobs.evaluation.report import build_report
from jobs.stop_signal import StopSignal, pass_on_sigterm
from jobs.tickets import JobTicket, RunTag
from jobs.tracking import RunWriter
from workers.evaluate import Progress
from workers.specs import RunMetric

logger = logging.getLogger(__name__)


def evaluate(ticket: JobTicket) -> None:
    """Ask, score, compare with the holder of an alias, and tell.

    Raises:
        JobError: As `jobs.evaluation.asking.ask` does.
        WorkerError: If a model, an adapter or a row cannot be used.
        StoppedEarlyError: If the evaluation was asked to stop, and did.
    """
    spec = ticket.spec
    assert isinstance(spec, EvaluateSpec)
    connect(
        ticket,
        MLFLOW_TRACKING_URI=ticket.tracking_uri,
        MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false",
    )
    stop = ray.remote(num_cpus=0)(StopSignal).remote()
    pass_on_sigterm(stop)
    client = MlflowClient(tracking_uri=ticket.tracking_uri)
    folder = f"{ticket.storage_path}/{ticket.job_id}"
    pins = decide_pins(spec, folder, client)
    with closing(RunWriter(client, ticket.run_id)) as writer:
        progress = _ProgressNote(writer)
        predictions = ask(_asked(spec, pins, ticket), folder, spec.resources, stop, progress.tell)
        promotion = promote(spec, pins, predictions, client)
        report = build_report(spec, pins, predictions, promotion, progress.tokens_per_s)
        publish_report(ticket, report, predictions, writer)
    client.set_tag(ticket.run_id, RunTag.SUMMARY, report.summary)
    logger.info("%s", report.summary)


class _ProgressNote:
    """Tells the job's run how far the workers are, and keeps how fast they are."""

    def __init__(self, writer: RunWriter) -> None:
        self._writer = writer
        self.tokens_per_s: float | None = None

    def tell(self, progress: Progress) -> None:
        """Write the rows of all models, and tokens a second."""
        self.tokens_per_s = progress.tokens_per_s
        values: dict[str, float] = {
            RunMetric.STEP: progress.num_done,
            RunMetric.TOTAL_STEPS: progress.num_rows,
        }
        if self.tokens_per_s is not None:
            values[RunMetric.TOKENS_PER_S] = self.tokens_per_s
        self._writer.write(progress.num_done, values)


def _asked(spec: EvaluateSpec, pins: Pins, ticket: JobTicket) -> Asked:
    return Asked(
        base_model=pins.base_model,
        models=pins.models,
        tasks=spec.tasks,
        files=ticket.files,
        mode=spec.mode,
        dtype=spec.dtype,
        max_new_tokens=spec.max_new_tokens,
        batch_rows=spec.batch_rows,
        chat_template=spec.chat_template,
    )


if __name__ == "__main__":
    sys.exit(run_driver(evaluate))

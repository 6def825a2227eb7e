"""The fine-tuning driver: Ray Train carries the training loop, MLflow gets the adapter.

Run as `python -m jobs.finetune` by Ray's Jobs API, with its ticket in the environment.
"""

import logging
import sys
from pathlib import Path

import ray
from mlflow import MlflowClient
from mlflow.entities import RunTag as TagOfRun
from mlflow.entities.model_registry import ModelVersion

from jobs.analysis.of_finetune import analyze_finetuned
from jobs.cluster import connect
from jobs.distributed import Fitted, fit
from jobs.entrypoint import run_driver
from jobs.finetune_specs import FinetuneSpec
from jobs.lineage import lineage_of
from jobs.registry import register_adapter
from jobs.stop_signal import StopSignal, pass_on_sigterm
from jobs.tickets import JobTicket, RunTag
from workers.checkpoint import ADAPTER_FOLDER

logger = logging.getLogger(__name__)


def finetune(ticket: JobTicket) -> None:
    """Train, check what was made, register it, and look at it if that is asked for.

    Raises:
        JobError: As `jobs.distributed.fit` does.
        StoppedEarlyError: If the job was asked to stop, and did.
    """
    connect(ticket)
    stop = ray.remote(num_cpus=0)(StopSignal).remote()
    pass_on_sigterm(stop)
    spec = ticket.spec
    assert isinstance(spec, FinetuneSpec)
    client = MlflowClient(tracking_uri=ticket.tracking_uri)
    version = _register(client, ticket, spec, fit(ticket, stop, ticket.job_id))
    # Before the version is told, with which the job is over: an attempt that dies is repeated.
    summary = analyze_finetuned(ticket, spec, version, stop)
    tags = {RunTag.MODEL_NAME: version.name, RunTag.MODEL_VERSION: version.version}
    if summary is not None:
        tags[RunTag.SUMMARY] = summary
    client.log_batch(ticket.run_id, tags=[TagOfRun(str(key), value) for key, value in tags.items()])
    logger.info("registered %s version %s", version.name, version.version)


def _register(
    client: MlflowClient, ticket: JobTicket, spec: FinetuneSpec, fitted: Fitted
) -> ModelVersion:
    with fitted.checkpoint.as_directory() as checkpoint:
        return register_adapter(
            client,
            ticket.run_id,
            Path(checkpoint) / ADAPTER_FOLDER,
            spec.registered_model_name,
            lineage_of(ticket, spec, fitted.outcome),
            spec.registry.alias,
        )


if __name__ == "__main__":
    sys.exit(run_driver(finetune))

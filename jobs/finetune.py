"""The fine-tuning driver: Ray Train carries the training loop, MLflow gets the adapter.

Run as `python -m jobs.finetune` by Ray's Jobs API, with its ticket in the environment.
"""

import logging
import sys
from pathlib import Path

import ray
from mlflow import MlflowClient

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
    """Train, check what was made, and register it.

    Raises:
        JobError: As `jobs.distributed.fit` does.
        StoppedEarlyError: If the training was asked to stop, and did.
    """
    connect()
    stop = ray.remote(num_cpus=0)(StopSignal).remote()
    pass_on_sigterm(stop)
    _register(ticket, fit(ticket, stop, ticket.job_id))


def _register(ticket: JobTicket, fitted: Fitted) -> None:
    spec = ticket.spec
    assert isinstance(spec, FinetuneSpec)
    client = MlflowClient(tracking_uri=ticket.tracking_uri)
    with fitted.checkpoint.as_directory() as checkpoint:
        version = register_adapter(
            client,
            ticket.run_id,
            Path(checkpoint) / ADAPTER_FOLDER,
            spec.registered_model_name,
            lineage_of(ticket, spec, fitted.outcome),
            spec.registry.alias,
        )
    client.set_tag(ticket.run_id, RunTag.MODEL_NAME, version.name)
    client.set_tag(ticket.run_id, RunTag.MODEL_VERSION, version.version)
    logger.info("registered %s version %s", version.name, version.version)


if __name__ == "__main__":
    sys.exit(run_driver(finetune))

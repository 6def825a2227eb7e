"""The fine-tuning driver: Ray Train carries the training loop, MLflow gets the adapter.

Run as `python -m jobs.finetune` by Ray's Jobs API, with its ticket in the environment.
"""

import hashlib
import importlib.metadata
import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from mlflow import MlflowClient
from ray.exceptions import OutOfMemoryError as RayOutOfMemoryError
from ray.train import CheckpointConfig, FailureConfig, RunConfig
from ray.train.torch import TorchTrainer, get_device
from ray.train.v2.api.exceptions import TrainingFailedError as RayTrainingFailedError
from transformers.utils.logging import disable_progress_bar

from jobs.entrypoint import run_driver
from jobs.errors import StoppedEarlyError, TrainingFailedError, WorkersLostError
from jobs.finetune_specs import FinetuneSpec
from jobs.placement import live_nodes, plan_workers
from jobs.ray_reporter import open_reporter
from jobs.registry import register_adapter
from jobs.restart_notes import RestartNotes, last_line
from jobs.run_folder import drop_damaged_snapshot
from jobs.stop_signal import StopSignal, pass_on_sigterm
from jobs.tickets import JobTicket, RunTag
from workers.base_model import digest
from workers.checkpoint import ADAPTER_FOLDER
from workers.errors import OutOfMemoryError, WorkerError
from workers.specs import FailureCode, HubDatasetSpec
from workers.train_loop import train
from workers.train_setup import TrainTask

logger = logging.getLogger(__name__)

_WORKER_GROUP_RESTARTS = 2


def finetune(ticket: JobTicket) -> None:
    """Train, check what was made, and register it.

    Raises:
        ResourcesUnavailableError: If the cluster can never place the workers.
        TrainingFailedError: If the workers met bad input or a numerical failure.
        WorkersLostError: If the worker group died more often than it is restarted.
        StoppedEarlyError: If the training was asked to stop, and did.
    """
    environment = {
        # Ray's own helper actors look the cluster up by this variable, which only drivers have;
        # without it they fail where two clusters share a machine.
        "RAY_ADDRESS": os.environ["RAY_ADDRESS"],
        # How often the end of a worker group is looked for; the default adds seconds to each job.
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    }
    ray.init(runtime_env={"env_vars": environment}, logging_level=logging.WARNING)
    drop_damaged_snapshot(ticket.storage_path, ticket.job_id)
    stop = ray.remote(num_cpus=0)(StopSignal).remote()
    pass_on_sigterm(stop)
    trainer = TorchTrainer(
        _train_on_worker,
        train_loop_config={"ticket": ticket.model_dump_json(), "stop": stop},
        scaling_config=plan_workers(ticket.spec.resources, live_nodes()),
        run_config=RunConfig(
            name=ticket.job_id,
            storage_path=ticket.storage_path,
            checkpoint_config=CheckpointConfig(num_to_keep=ticket.spec.training.kept_checkpoints),
            failure_config=FailureConfig(max_failures=_WORKER_GROUP_RESTARTS),
            callbacks=[RestartNotes(ticket)],
        ),
    )
    try:
        result = trainer.fit()
    except RayTrainingFailedError as error:
        raise _explain(error) from error
    outcome = result.return_value
    if "failure_code" in outcome:
        raise TrainingFailedError(outcome["failure_message"], outcome["failure_code"])
    if outcome["steps"] < outcome["total_steps"]:
        raise StoppedEarlyError(
            f"stopped with a checkpoint after step {outcome['steps']} of {outcome['total_steps']}"
        )
    if outcome["steps"] == 0 or not math.isfinite(outcome["train_loss"]):
        raise TrainingFailedError(f"the training ended without a result: {outcome}")
    with result.checkpoint.as_directory() as checkpoint:
        _register(ticket, Path(checkpoint) / ADAPTER_FOLDER, outcome)


def _explain(error: RayTrainingFailedError) -> TrainingFailedError | WorkersLostError:
    """What to tell the user about a worker group that died once too often."""
    for failure in getattr(error, "worker_failures", {}).values():
        for cause in _causes(failure):
            if isinstance(cause, WorkerError):
                return TrainingFailedError(str(cause), cause.code)
            if isinstance(cause, RayOutOfMemoryError):
                return TrainingFailedError(
                    f"Ray ended a worker since its node ran out of memory: {last_line(str(cause))}"
                    "; try a smaller training.micro_batch_tokens, or fewer workers on a node",
                    FailureCode.OUT_OF_MEMORY,
                )
    return WorkersLostError(
        f"the training workers died {_WORKER_GROUP_RESTARTS + 1} times; "
        f"the job's log shows why: {last_line(str(error))}"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those it wraps; Ray wraps what a worker raises in errors of its own."""
    while error is not None:
        yield error
        inner = (getattr(error, name, None) for name in ("_base_exc", "cause", "__cause__"))
        error = next((found for found in inner if isinstance(found, BaseException)), None)


def _train_on_worker(config: Mapping[str, Any]) -> dict[str, Any]:
    """Run the training loop on one rank of the Ray Train worker group.

    A failure that another attempt would only repeat is returned, not raised: Ray restarts the
    worker group on any exception.
    """
    ticket = JobTicket.model_validate_json(config["ticket"])
    spec = ticket.spec
    torch.set_num_threads(spec.resources.cpus_per_worker)
    disable_progress_bar()
    task = TrainTask(
        base_model=spec.base_model,
        adapter=spec.adapter,
        data=spec.data,
        files={file_id: Path(ref.uri) for file_id, ref in ticket.files.items()},
        training=spec.training,
    )
    try:
        with open_reporter(ticket, config["stop"]) as reporter:
            return asdict(train(task, reporter, get_device()))
    except OutOfMemoryError:
        raise  # of one rank alone: returned, it would leave the others waiting for it
    except WorkerError as error:
        return {"failure_code": error.code, "failure_message": str(error)}


def _register(ticket: JobTicket, adapter_dir: Path, outcome: Mapping[str, Any]) -> None:
    spec = ticket.spec
    assert isinstance(spec, FinetuneSpec)
    client = MlflowClient(tracking_uri=ticket.tracking_uri)
    version = register_adapter(
        client,
        ticket.run_id,
        adapter_dir,
        spec.registered_model_name,
        _lineage(ticket, spec, outcome),
        spec.registry.alias,
    )
    client.set_tag(ticket.run_id, RunTag.MODEL_NAME, version.name)
    client.set_tag(ticket.run_id, RunTag.MODEL_VERSION, version.version)
    logger.info("registered %s version %s", version.name, version.version)


def _lineage(ticket: JobTicket, spec: FinetuneSpec, outcome: Mapping[str, Any]) -> dict[str, str]:
    """Where a model version comes from: enough to make it again."""
    digests = {}
    for field, source in spec.data.sources().items():
        role = field.removeprefix("data.")
        if isinstance(source, HubDatasetSpec):
            digests[f"{role}_source"] = source.model_dump_json(exclude_none=True)
        elif source in ticket.files:
            digests[f"{role}_sha256"] = ticket.files[source].sha256
        else:
            digests[f"{role}_source"] = source
    scores = {
        name: f"{outcome[name]:.6g}"
        for name in ("train_loss", "eval_loss", "steps", "num_trainable_parameters")
        if outcome[name] is not None
    }
    return {
        RunTag.JOB_ID: ticket.job_id,
        "base_model": spec.base_model,
        "base_model_digest": digest(spec.base_model),
        "spec_sha256": hashlib.sha256(spec.model_dump_json().encode()).hexdigest(),
        "seed": str(spec.training.seed),
        "code_version": importlib.metadata.version("hyplora"),
        **digests,
        **scores,
    }


if __name__ == "__main__":
    sys.exit(run_driver(finetune))

"""The fine-tuning driver: Ray Train carries the training loop, MLflow gets the adapter.

Run as `python -m jobs.finetune` by Ray's Jobs API, with its ticket in the environment.
"""

import hashlib
import importlib.metadata
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from mlflow import MlflowClient
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device
from ray.train.v2.api.exceptions import TrainingFailedError as RayTrainingFailedError
from transformers.utils.logging import disable_progress_bar

from jobs.entrypoint import run_driver
from jobs.errors import ResourcesUnavailableError, TrainingFailedError, WorkersLostError
from jobs.registry import register_adapter
from jobs.specs import FinetuneSpec, JobTicket, RunTag
from jobs.tracking import MetricWriter
from workers.base_model import digest
from workers.errors import WorkerError
from workers.specs import ResourcesSpec
from workers.train_loop import TrainTask, train

logger = logging.getLogger(__name__)

_WORKER_GROUP_RESTARTS = 2
_KEPT_CHECKPOINTS = 2


def finetune(ticket: JobTicket) -> None:
    """Train, check what was made, and register it.

    Raises:
        ResourcesUnavailableError: If the cluster can never place the workers.
        TrainingFailedError: If the workers met bad input or a numerical failure.
        WorkersLostError: If the worker group died more often than it is restarted.
    """
    environment = {
        # Ray's own helper actors look the cluster up by this variable, which only drivers have;
        # without it they fail where two clusters share a machine.
        "RAY_ADDRESS": os.environ["RAY_ADDRESS"],
        # How often the end of a worker group is looked for; the default adds seconds to each job.
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    }
    ray.init(runtime_env={"env_vars": environment}, logging_level=logging.WARNING)
    trainer = TorchTrainer(
        _train_on_worker,
        train_loop_config={"ticket": ticket.model_dump_json()},
        scaling_config=plan_workers(ticket.spec.resources, ray.cluster_resources()),
        run_config=RunConfig(
            name=ticket.job_id,
            storage_path=ticket.storage_path,
            checkpoint_config=CheckpointConfig(num_to_keep=_KEPT_CHECKPOINTS),
            failure_config=FailureConfig(max_failures=_WORKER_GROUP_RESTARTS),
        ),
    )
    try:
        result = trainer.fit()
    except RayTrainingFailedError as error:
        raise WorkersLostError(
            f"the training workers died {_WORKER_GROUP_RESTARTS + 1} times; "
            f"the job's log shows why: {_last_line(str(error))}"
        ) from error
    outcome = result.return_value
    if "failure_code" in outcome:
        raise TrainingFailedError(outcome["failure_message"], outcome["failure_code"])
    with result.checkpoint.as_directory() as checkpoint:
        _register(ticket, Path(checkpoint) / "adapter", outcome)


def plan_workers(resources: ResourcesSpec, cluster: Mapping[str, float]) -> ScalingConfig:
    """Place the workers on GPUs where the cluster has enough, and refuse what can never fit.

    Args:
        resources: What the job asks for.
        cluster: Ray's totals by resource name.

    Raises:
        ResourcesUnavailableError: If the whole cluster is smaller than what is asked for.
    """
    num_workers = resources.num_workers
    gpus_each = resources.gpus_per_worker
    if gpus_each is None:
        gpus_each = 1 if cluster.get("GPU", 0) >= num_workers else 0
    wanted = {"CPU": num_workers * resources.cpus_per_worker, "GPU": num_workers * gpus_each}
    for name, amount in wanted.items():
        if amount > cluster.get(name, 0):
            raise ResourcesUnavailableError(
                f"resources: {num_workers} worker(s) need {amount} {name} together, "
                f"the cluster has {cluster.get(name, 0):g}; ask for fewer or add nodes"
            )
    per_worker = {"CPU": float(resources.cpus_per_worker)}
    if gpus_each:
        per_worker["GPU"] = float(gpus_each)
    return ScalingConfig(
        num_workers=num_workers, use_gpu=bool(gpus_each), resources_per_worker=per_worker
    )


def _train_on_worker(config: Mapping[str, str]) -> dict[str, Any]:
    """Run the training loop on one rank of the Ray Train worker group.

    A failure that another attempt would only repeat is returned, not raised: Ray restarts the
    worker group on any exception.
    """
    ticket = JobTicket.model_validate_json(config["ticket"])
    spec = ticket.spec
    torch.set_num_threads(spec.resources.cpus_per_worker)
    disable_progress_bar()
    files = {file_id: Path(ref.uri) for file_id, ref in ticket.files.items()}
    validation = spec.data.validation
    task = TrainTask(
        base_model=spec.base_model,
        adapter=spec.adapter,
        data=spec.data,
        train_path=files[spec.data.train],
        validation_path=files[validation] if validation else None,
        training=spec.training,
    )
    try:
        with _reporter(ticket) as reporter:
            return asdict(train(task, reporter, get_device()))
    except WorkerError as error:
        return {"failure_code": error.code, "failure_message": str(error)}


class _RayReporter:
    """Reports from a rank to Ray Train and, on rank 0, to MLflow."""

    def __init__(self, writer: MetricWriter | None) -> None:
        self._writer = writer

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Queue a step's metrics for MLflow."""
        if self._writer is not None:
            self._writer.write(step, values)

    def checkpoint(self, step: int, directory: Path | None) -> None:
        """Hand a checkpoint to Ray Train, which copies it to storage before this returns."""
        checkpoint = ray.train.Checkpoint.from_directory(directory) if directory else None
        ray.train.report({"step": step}, checkpoint=checkpoint)

    @contextmanager
    def latest_checkpoint(self) -> Iterator[Path | None]:
        """Lend the checkpoint that an earlier attempt left."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            yield None
            return
        with checkpoint.as_directory() as directory:
            yield Path(directory)


@contextmanager
def _reporter(ticket: JobTicket) -> Iterator[_RayReporter]:
    if ray.train.get_context().get_world_rank() != 0:
        yield _RayReporter(None)
        return
    writer = MetricWriter(MlflowClient(tracking_uri=ticket.tracking_uri), ticket.run_id)
    try:
        yield _RayReporter(writer)
    finally:
        writer.close()


def _register(ticket: JobTicket, adapter_dir: Path, outcome: Mapping[str, Any]) -> None:
    spec = ticket.spec
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
    roles = {"train": spec.data.train, "validation": spec.data.validation}
    digests = {
        f"{role}_sha256": ticket.files[file_id].sha256 for role, file_id in roles.items() if file_id
    }
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


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no detail"


if __name__ == "__main__":
    sys.exit(run_driver(finetune))

"""One fine-tune on a worker group of Ray Train, from the driver's side and on the workers."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from ray.actor import ActorHandle
from ray.exceptions import OutOfMemoryError as RayOutOfMemoryError
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig
from ray.train.torch import TorchTrainer, get_device
from ray.train.v2.api.exceptions import TrainingFailedError as RayTrainingFailedError
from transformers.utils.logging import disable_progress_bar

from jobs.errors import StoppedEarlyError, TrainingFailedError, WorkersLostError
from jobs.finetune_specs import FinetuneSpec
from jobs.placement import live_nodes, plan_workers
from jobs.ray_reporter import open_reporter
from jobs.restart_notes import RestartNotes, last_line
from jobs.run_folder import drop_damaged_snapshot, remove_leftovers
from jobs.tickets import FileRef, JobTicket
from workers.errors import OutOfMemoryError, WorkerError
from workers.specs import FailureCode
from workers.train_loop import train
from workers.train_setup import TrainTask

_WORKER_GROUP_RESTARTS = 2


@dataclass(frozen=True)
class Fitted:
    """A fine-tune that has done all its steps."""

    outcome: Mapping[str, Any]
    """Fields of `workers.train_loop.TrainResult`."""

    checkpoint: Checkpoint
    """The last one."""


def fit(ticket: JobTicket, stop: ActorHandle, run_name: str) -> Fitted:
    """Train what a ticket asks for, going on from the checkpoints under the same name.

    Args:
        ticket: Of a fine-tune; metrics go to its run.
        stop: The driver's `StopSignal`.
        run_name: Folder of the checkpoints within the ticket's storage.

    Raises:
        ResourcesUnavailableError: If the cluster can never place the workers.
        TrainingFailedError: If the workers met bad input or a numerical failure.
        WorkersLostError: If the worker group died more often than it is restarted.
        StoppedEarlyError: If the training was asked to stop, and did.
    """
    drop_damaged_snapshot(ticket.storage_path, run_name)
    spec = ticket.spec
    assert isinstance(spec, FinetuneSpec)
    trainer = TorchTrainer(
        _train_on_worker,
        train_loop_config={"ticket": ticket.model_dump_json(), "stop": stop},
        scaling_config=plan_workers(spec.resources, live_nodes()),
        run_config=RunConfig(
            name=run_name,
            storage_path=ticket.storage_path,
            checkpoint_config=CheckpointConfig(num_to_keep=spec.training.kept_checkpoints),
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
    # Not sooner: a training that goes on may need an older one that Ray Train does not know.
    kept = {Path(checkpoint.path).name for checkpoint, _ in result.best_checkpoints or ()}
    if kept:
        remove_leftovers(ticket.storage_path, run_name, kept)
    return Fitted(outcome, result.checkpoint)


def task_of(spec: FinetuneSpec, files: Mapping[str, FileRef]) -> TrainTask:
    """What a fine-tune trains, with its uploaded files by id."""
    return TrainTask(
        base_model=spec.base_model,
        adapter=spec.adapter,
        data=spec.data,
        files={file_id: Path(ref.uri) for file_id, ref in files.items()},
        training=spec.training,
    )


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
    assert isinstance(spec, FinetuneSpec)
    torch.set_num_threads(spec.resources.cpus_per_worker)
    disable_progress_bar()
    try:
        with open_reporter(ticket, config["stop"]) as reporter:
            return asdict(train(task_of(spec, ticket.files), reporter, get_device()))
    except OutOfMemoryError:
        raise  # of one rank alone: returned, it would leave the others waiting for it
    except WorkerError as error:
        return {"failure_code": error.code, "failure_message": str(error)}

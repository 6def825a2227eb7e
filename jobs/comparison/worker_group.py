"""A training of a comparison that needs several workers: it starts a group of Ray Train."""

from pathlib import Path

from ray.actor import ActorHandle

from jobs.compare_specs import CompareSpec
from jobs.comparison.record import failed, record_of
from jobs.comparison.training import Training, TrainingRecord
from jobs.distributed import fit
from jobs.errors import StoppedEarlyError, TrainingFailedError
from jobs.tickets import JobTicket
from workers.specs import FailureCode
from workers.train_loop import TrainResult


def train_in_group(
    ticket: str, training: Training, run_id: str, stop: ActorHandle
) -> TrainingRecord | None:
    """Train, going on from the checkpoints that an earlier attempt left.

    Args:
        ticket: The comparison's `JobTicket` as JSON.
        training: What is trained.
        run_id: The MLflow run that gets its metrics.
        stop: The driver's `StopSignal`.

    Returns:
        What became of it; None if it was asked to stop, and did.

    Raises:
        JobError: If the workers cannot be placed, died more often than they are restarted, or have
            no room for a checkpoint, which is not the method's fault.
    """
    job = JobTicket.model_validate_json(ticket)
    spec = job.spec
    assert isinstance(spec, CompareSpec)
    inner = spec.training_spec(training.method, training.learning_rate, training.seed)
    own = job.model_copy(update={"spec": inner, "run_id": run_id})
    try:
        fitted = fit(own, stop, training.folder_of(job.job_id))
    except StoppedEarlyError:
        return None
    except TrainingFailedError as error:
        if error.code is FailureCode.STORAGE_FULL:
            raise
        return failed(error.code, error)
    return record_of(TrainResult(**fitted.outcome), Path(fitted.checkpoint.path).name)

"""A process that trains one adapter of a comparison after another."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import ray
import torch
from mlflow import MlflowClient
from ray.actor import ActorHandle
from transformers.utils.logging import disable_progress_bar

from jobs.compare_specs import CompareSpec
from jobs.comparison.record import failed, record_of
from jobs.comparison.training import Training, TrainingRecord
from jobs.distributed import task_of
from jobs.stop_signal import StopListener
from jobs.stored_checkpoints import StoredCheckpoints
from jobs.tickets import JobTicket
from jobs.tracking import RunWriter
from workers.data_report import DataReport
from workers.errors import StorageFullError, WorkerError
from workers.specs import RunMetric
from workers.train_loop import train
from workers.warm_start import SharedRows, WarmStart


class WarmPlace:
    """An actor whose base model and rows stay in memory between trainings.

    Args:
        ticket: The comparison's `JobTicket` as JSON.
        rows: What every training reads.
        stop: The driver's `StopSignal`.
    """

    def __init__(self, ticket: str, rows: SharedRows, stop: ActorHandle) -> None:
        disable_progress_bar()
        self._job = JobTicket.model_validate_json(ticket)
        self._stop = stop
        self._warm = WarmStart(rows)
        self._device = torch.device("cuda" if ray.get_gpu_ids() else "cpu")

    def train(self, training: Training, run_id: str) -> TrainingRecord | None:
        """Train, going on from the checkpoints that an earlier attempt left.

        Args:
            training: What is trained.
            run_id: The MLflow run that gets its metrics.

        Returns:
            What became of it; None if it was asked to stop, and did.

        Raises:
            StorageFullError: If there is no room for a checkpoint, which is not the method's fault.
        """
        job, spec = self._job, self._job.spec
        assert isinstance(spec, CompareSpec)
        torch.set_num_threads(spec.resources.cpus_per_worker)
        inner = spec.training_spec(training.method, training.learning_rate, training.seed)
        checkpoints = StoredCheckpoints(
            job.storage_path, training.folder_of(job.job_id), inner.training.kept_checkpoints
        )
        writer = RunWriter(MlflowClient(tracking_uri=job.tracking_uri), run_id)
        listener = StopListener(self._stop.poll.remote)
        reporter = _Reporter(writer, listener, checkpoints)
        is_on_gpu = self._device.type == "cuda"
        if is_on_gpu:
            torch.cuda.reset_peak_memory_stats(self._device)
        try:
            task = task_of(inner, job.files)
            result = train(task, reporter, self._device, self._warm.prepare)
        except StorageFullError:
            raise
        except WorkerError as error:
            return failed(error.code, error)
        finally:
            self._warm.release()
            listener.close()
            writer.close()
        if not result.is_complete:
            return None
        peak = torch.cuda.max_memory_allocated(self._device) if is_on_gpu else None
        return record_of(result, checkpoints.names()[-1], peak)


class _Reporter:
    """Reports a training to its run in MLflow, and keeps its checkpoints on storage."""

    def __init__(
        self, writer: RunWriter, listener: StopListener, checkpoints: StoredCheckpoints
    ) -> None:
        self._writer = writer
        self._listener = listener
        self._checkpoints = checkpoints

    def data_report(self, report: DataReport) -> None:
        """Nothing: the driver has told of the rows."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Queue them for MLflow."""
        self._writer.write(step, values)

    def checkpoint(self, step: int, directory: Path | None) -> None:
        """Move it to storage."""
        assert directory is not None, "there is one rank"
        self._checkpoints.add(directory)
        self._writer.write(step, {RunMetric.CHECKPOINT_STEP: step})

    def checkpoints(self) -> Iterator[AbstractContextManager[Path]]:
        """Those that an earlier attempt left."""
        return self._checkpoints.newest_first()

    def stop_requested(self) -> bool:
        """Whether the comparison was asked to stop."""
        return self._listener.requested

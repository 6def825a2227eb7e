"""What surrounds a training loop on a Ray Train worker: checkpoints, metrics, the wish to stop."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import ray
import ray.train
from mlflow import MlflowClient
from ray.actor import ActorHandle
from ray.train import Checkpoint, CheckpointUploadMode

from jobs.run_folder import checkpoint_names
from jobs.stop_signal import StopListener
from jobs.tickets import JobTicket, RunTag
from jobs.tracking import RunWriter
from workers.checkpoint import raise_if_full, read_state
from workers.data_report import DataReport, summary
from workers.errors import AdapterUnusableError, CheckpointDamagedError
from workers.specs import RunMetric

logger = logging.getLogger(__name__)


class RayReporter:
    """Reports from a rank to Ray Train and, on rank 0, to MLflow."""

    def __init__(self, writer: RunWriter | None, listener: StopListener | None) -> None:
        self._writer = writer
        self._listener = listener

    def data_report(self, report: DataReport) -> None:
        """Queue the report for MLflow."""
        if self._writer is not None:
            self._writer.write_document("data_report.json", report.model_dump_json(indent=2))
            level = "warning" if report.trains_on_leaks else "info"
            self._writer.write_tag(RunTag.DATA_LEVEL, level)
            # Last: who sees it, sees the rest.
            self._writer.write_tag(RunTag.DATA_SUMMARY, summary(report))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Queue a step's metrics for MLflow."""
        if self._writer is not None:
            self._writer.write(step, values)

    def checkpoint(self, step: int, directory: Path | None) -> None:
        """Hand a checkpoint to Ray Train, which copies it to storage in the background.

        It counts from the moment when it is there whole.
        """
        storage = ray.train.get_context().get_storage()

        def store(checkpoint: Checkpoint, name: str) -> Checkpoint:
            try:
                stored = storage.persist_current_checkpoint(checkpoint, name)
            except OSError as error:
                raise_if_full(error, Path(checkpoint.path))
                raise
            if self._writer is not None:
                self._writer.write(step, {RunMetric.CHECKPOINT_STEP: step})
            return stored

        ray.train.report(
            {"step": step},
            checkpoint=Checkpoint.from_directory(directory) if directory else None,
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            delete_local_checkpoint_after_upload=True,
            checkpoint_upload_fn=store,
        )

    def checkpoints(self) -> Iterator[AbstractContextManager[Path]]:
        """Lend the checkpoints that earlier attempts left.

        The folder is asked, not Ray Train: what a driver that was killed had stored and not yet
        noted serves, too, if it is whole. What Ray Train has noted should be whole.
        """
        storage = ray.train.get_context().get_storage()
        noted = {
            Path(each.checkpoint.path).name for each in ray.train.get_all_reported_checkpoints()
        }
        names = checkpoint_names(storage.storage_filesystem, storage.experiment_fs_path)
        for name in reversed(names):
            path = f"{storage.experiment_fs_path}/{name}"
            lent = Checkpoint(path, storage.storage_filesystem)
            if name in noted or is_whole(lent):
                yield lend(lent)

    def stop_requested(self) -> bool:
        """Whether the driver was asked to stop."""
        return self._listener is not None and self._listener.requested


def is_whole(checkpoint: Checkpoint) -> bool:
    """Whether a stored checkpoint is all there, which a copy that was cut off is not."""
    with checkpoint.as_directory() as directory:
        try:
            read_state(Path(directory))
        except (AdapterUnusableError, CheckpointDamagedError) as error:
            logger.warning("%s; it was never finished", error)
            return False
    return True


@contextmanager
def lend(checkpoint: Checkpoint) -> Iterator[Path]:
    """A checkpoint as a folder that can be read within the context."""
    with checkpoint.as_directory() as directory:
        yield Path(directory)


@contextmanager
def open_reporter(ticket: JobTicket, stop: ActorHandle) -> Iterator[RayReporter]:
    """Where the rank that this process is reports to, until the context ends."""
    if ray.train.get_context().get_world_rank() != 0:
        yield RayReporter(None, None)
        return
    writer = RunWriter(MlflowClient(tracking_uri=ticket.tracking_uri), ticket.run_id)
    listener = StopListener(stop.poll.remote)
    try:
        yield RayReporter(writer, listener)
    finally:
        listener.close()
        writer.close()

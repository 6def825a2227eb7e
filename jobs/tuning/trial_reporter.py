"""What surrounds the training loop of a trial: Ray Tune, its run in MLflow, the wish to cancel."""

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import Checkpoint

from jobs.objective_specs import ObjectiveMetric
from jobs.ray_reporter import lend
from jobs.stop_signal import StopListener
from jobs.tickets import TRIAL_START_SECONDS
from jobs.tracking import RunWriter
from jobs.tuning.schedulers import STEP
from workers.data_report import DataReport
from workers.reporter import SilentReporter
from workers.specs import RunMetric

IS_COMPLETE = "is_complete"
"""Result of a trial that has trained to its end, with every seed."""

CHECKPOINT_PATH = "checkpoint_path"
"""Result of a trial that keeps its checkpoints itself: where the last one is."""


class TrialReporter:
    """Reports the training with a trial's first seed.

    Ray Tune hears of every evaluation and checkpoint; while it takes a report in, the training
    waits, and ends there if the scheduler says so.

    Args:
        writer: Of the trial's run.
        listener: Hears whether the user cancels the trial.
        began: When the trial began, by `time.perf_counter`.
    """

    def __init__(self, writer: RunWriter, listener: StopListener, began: float) -> None:
        self._writer = writer
        self._listener = listener
        self._began = self._started = began
        self._first_step: int | None = None
        self.result: dict[str, Any] = {}

    def data_report(self, report: DataReport) -> None:
        """Nothing: the driver has told of the rows."""

    def ready(self, num_trainable_parameters: int) -> None:
        """Take the size of the adapter, just before the first step."""
        self._started = time.perf_counter()
        self._writer.write(0, {TRIAL_START_SECONDS: self._started - self._began})
        self.result[str(ObjectiveMetric.NUM_PARAMETERS)] = num_trainable_parameters

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Queue them for MLflow, and tell Ray Tune of an evaluation."""
        self._writer.write(step, values)
        if self._first_step is None:
            self._first_step = step - 1
        seconds_a_step = (time.perf_counter() - self._started) / (step - self._first_step)
        self.result |= {
            STEP: step,
            str(ObjectiveMetric.TRAIN_LOSS): values[RunMetric.LOSS],
            str(ObjectiveMetric.SECONDS_A_STEP): seconds_a_step,
        }
        if RunMetric.EVAL_LOSS in values:
            self.result[str(ObjectiveMetric.EVAL_LOSS)] = values[RunMetric.EVAL_LOSS]
            tune.report(dict(self.result))

    def checkpoint(self, step: int, directory: Path | None) -> None:
        """Hand a checkpoint to Ray Tune, which copies it to storage."""
        assert directory is not None, "a trial has one rank"
        try:
            tune.report(dict(self.result), checkpoint=Checkpoint.from_directory(str(directory)))
        finally:
            shutil.rmtree(directory)
        self._writer.write(step, {RunMetric.CHECKPOINT_STEP: step})

    def checkpoints(self) -> Iterator[AbstractContextManager[Path]]:
        """Lend the checkpoint from which Ray Tune lets the trial go on, if there is one."""
        checkpoint = tune.get_checkpoint()
        if checkpoint is not None:
            yield lend(checkpoint)

    def stop_requested(self) -> bool:
        """Whether the user has cancelled the trial."""
        return self._listener.requested


class FurtherSeedReporter(SilentReporter):
    """Reports the training with another seed of the same trial: its metrics, to MLflow alone.

    Args:
        number: Counts the seeds; metrics are named `seed_NUMBER/…`.
        writer: Of the trial's run.
        listener: Hears whether the user cancels the trial.
    """

    def __init__(self, number: int, writer: RunWriter, listener: StopListener) -> None:
        self._prefix = f"seed_{number}"
        self._writer = writer
        self._listener = listener

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Queue them for MLflow."""
        self._writer.write(step, {f"{self._prefix}/{name}": each for name, each in values.items()})

    def stop_requested(self) -> bool:
        """Whether the user has cancelled the trial."""
        return self._listener.requested

"""A reporter that keeps everything, and the tasks that the worker tests train."""

import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from workers.specs import AdapterSpec, DataSpec, HypLoraSpec, TrainingSpec
from workers.train_loop import TrainResult, TrainTask, train


class RecordingReporter:
    """Keeps metrics in memory and checkpoints as folders named by their step."""

    def __init__(self, folder: Path, resume_from: Path | None = None) -> None:
        self.folder = folder
        self.resume_from = resume_from
        self.history: dict[int, dict[str, float]] = {}
        self.checkpoints: dict[int, Path] = {}
        self.handed_over: list[Path] = []

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.history[step] = {str(name): value for name, value in values.items()}

    def checkpoint(self, step: int, directory: Path | None) -> None:
        assert directory is not None
        self.handed_over.append(directory)
        self.checkpoints[step] = shutil.copytree(directory, self.folder / str(step))

    def latest_checkpoint(self) -> AbstractContextManager[Path | None]:
        return nullcontext(self.resume_from)

    def curve(self, metric: str) -> list[float]:
        return [values[metric] for _, values in sorted(self.history.items()) if metric in values]


def task_for(
    base_model: Path,
    rows: Path,
    *,
    adapter: AdapterSpec | None = None,
    data: Mapping[str, Any] | None = None,
    validation: Path | None = None,
    **training: Any,
) -> TrainTask:
    """A small training; keywords are those of `TrainingSpec`."""
    defaults = {"batch_size": 8, "micro_batch_size": 4, "learning_rate": 1e-2}
    return TrainTask(
        base_model=str(base_model),
        adapter=adapter or HypLoraSpec(),
        data=DataSpec(train=f"file-{0:016x}", **(data or {})),
        train_path=rows,
        validation_path=validation,
        training=TrainingSpec(**(defaults | training)),
    )


def run(
    task: TrainTask, folder: Path, *, resume_from: Path | None = None
) -> tuple[RecordingReporter, TrainResult]:
    """Train on this CPU."""
    reporter = RecordingReporter(folder, resume_from)
    return reporter, train(task, reporter, torch.device("cpu"))

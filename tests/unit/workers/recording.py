"""A reporter that keeps everything, and the tasks that the worker tests train."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from workers.data_report import DataReport
from workers.specs import AdapterSpec, DataSpec, HypLoraSpec, TrainingSpec
from workers.train_loop import TrainResult, train
from workers.train_setup import TrainTask

TRAIN_ID, VALIDATION_ID = f"file-{0:016x}", f"file-{1:016x}"


class RecordingReporter:
    """Keeps metrics in memory and checkpoints as folders named by their step."""

    def __init__(self, folder: Path, resume_from: Path | Sequence[Path] = ()) -> None:
        self.folder = folder
        self.resume_from = [resume_from] if isinstance(resume_from, Path) else list(resume_from)
        self.history: dict[int, dict[str, float]] = {}
        self.kept: dict[int, Path] = {}
        self.handed_over: list[Path] = []
        self.reports: list[DataReport] = []
        self.stop_after: int | None = None

    def data_report(self, report: DataReport) -> None:
        self.reports.append(report)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.history[step] = {str(name): value for name, value in values.items()}

    def checkpoint(self, step: int, directory: Path | None) -> None:
        assert directory is not None
        self.handed_over.append(directory)
        self.kept[step] = shutil.copytree(directory, self.folder / str(step))
        shutil.rmtree(directory)

    def checkpoints(self) -> Iterator[AbstractContextManager[Path]]:
        return map(nullcontext, self.resume_from)

    def stop_requested(self) -> bool:
        return self.stop_after is not None and max(self.history) >= self.stop_after

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
    defaults = {"batch_size": 8, "micro_batch_tokens": 128, "learning_rate": 1e-2}
    sources = {"train": TRAIN_ID} | ({"validation": VALIDATION_ID} if validation else {})
    return TrainTask(
        base_model=str(base_model),
        adapter=adapter or HypLoraSpec(),
        data=DataSpec(**sources, **(data or {})),
        files={TRAIN_ID: rows} | ({VALIDATION_ID: validation} if validation else {}),
        training=TrainingSpec(**(defaults | training)),
    )


def run(
    task: TrainTask,
    folder: Path,
    *,
    resume_from: Path | Sequence[Path] = (),
    stop_after: int | None = None,
) -> tuple[RecordingReporter, TrainResult]:
    """Train on this CPU."""
    reporter = RecordingReporter(folder, resume_from)
    reporter.stop_after = stop_after
    return reporter, train(task, reporter, torch.device("cpu"))

"""Where a training reports to, and hears from: what surrounds the loop, as the loop sees it."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from workers.data_report import DataReport


class Reporter(Protocol):
    """The surroundings of one rank; every method is called on every rank at the same steps."""

    def data_report(self, report: DataReport) -> None:
        """Take the report on the data, before the first step; rank 0's counts. Must not block."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Take the metrics after a step; rank 0's count. Must not block."""

    def checkpoint(self, step: int, directory: Path | None) -> None:
        """Take a checkpoint, given on rank 0 alone, and remove the directory once it is stored."""

    def checkpoints(self) -> Iterator[AbstractContextManager[Path]]:
        """The checkpoints to resume from, newest first, each readable within its context."""

    def stop_requested(self) -> bool:
        """Whether the training is to stop after this step; rank 0's answer counts."""


class SilentReporter:
    """A training by itself: nothing is told, nothing kept, nothing resumed."""

    def data_report(self, report: DataReport) -> None:
        """Forget it."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Forget them."""

    def checkpoint(self, step: int, directory: Path | None) -> None:
        """Remove it."""
        if directory is not None:
            shutil.rmtree(directory)

    def checkpoints(self) -> Iterator[AbstractContextManager[Path]]:
        """There are none."""
        return iter(())

    def stop_requested(self) -> bool:
        """It never is."""
        return False

"""Trainings one after another on the same rows and base model, which only the first one loads.

A search trains many adapters, and loading a base model takes longer than some of their trainings.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from workers.data import stacked, unstacked
from workers.model_setup import SETTINGS_OF_BASE, load_base
from workers.prepare_data import PreparedData
from workers.train_setup import assemble, read_data, template_to_keep

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

    from workers.data_report import DataReport
    from workers.model_setup import Base
    from workers.train_setup import TrainSetup, TrainTask


@dataclass(frozen=True)
class SharedRows:
    """The rows of many trainings, ready to be sent to other processes without being copied."""

    train: dict[str, torch.Tensor]
    held_out: dict[str, torch.Tensor]
    report: DataReport
    chat_template: str | None

    @staticmethod
    def read(task: TrainTask) -> SharedRows:
        """Read and tokenize the rows of a task.

        Raises:
            WorkerError: As `workers.train_setup.read_data` does.
        """
        tokenizer, data = read_data(task)
        return SharedRows(
            stacked(data.train),
            stacked(data.held_out),
            data.report,
            template_to_keep(task, tokenizer),
        )

    def unpacked(self) -> PreparedData:
        """The rows as a training reads them."""
        return PreparedData(unstacked(self.train), unstacked(self.held_out), self.report)


@dataclass
class WarmStart:
    """What stays in a process between trainings; one training at a time may use it.

    Args:
        rows: What every training reads.
    """

    rows: SharedRows
    _data: PreparedData = field(init=False)
    _base: Base | None = field(init=False, default=None)
    _settings: object = field(init=False, default=None)
    _in_use: PeftModel | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._data = self.rows.unpacked()

    def prepare(self, task: TrainTask, device: torch.device) -> TrainSetup:
        """As `workers.train_setup.prepare`, with what is there already.

        Raises:
            WorkerError: As that does.
        """
        assert self._in_use is None, "the training before has not been released"
        settings = (task.base_model, device, task.training.model_dump(include=SETTINGS_OF_BASE))
        if self._base is None or settings != self._settings:
            self._base = None  # before another is loaded, so that memory holds only one
            self._base = load_base(task.base_model, task.training, device)
            self._settings = settings
        setup = assemble(task, device, self._data, self.rows.chat_template, self._base)
        self._in_use = setup.model
        return setup

    @contextmanager
    def answering(self) -> Iterator[PeftModel]:
        """Lend the model of the last training, which is not released yet, to be asked questions.

        Its adapter takes no gradients afterwards.
        """
        assert self._in_use is not None, "no training has begun"
        assert self._base is not None, "a training has a base model"
        base, of_training = self._base.model, self._base.model.config._attn_implementation
        base.set_attn_implementation(self._base.attention)
        try:
            yield self._in_use.eval()
        finally:
            base.set_attn_implementation(of_training)

    def release(self) -> None:
        """Take the adapter of the last training off the base model, however that ended."""
        if self._in_use is not None:
            self._in_use.unload()
            self._in_use = None

"""The training loop on a GPU follows the curve that a CPU draws."""

from pathlib import Path

import pytest
import torch

from tests.tiny_model import write_addition_rows
from tests.unit.workers.recording import RecordingReporter, task_for
from workers.specs import RunMetric
from workers.train_loop import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_a_gpu_draws_the_loss_curve_of_a_cpu(tiny_model_dir: Path, tmp_path: Path) -> None:
    rows = write_addition_rows(tmp_path / "rows.jsonl")
    task = task_for(tiny_model_dir, rows, max_steps=8, dtype="float32")
    curves = []
    for device in ("cpu", "cuda"):
        reporter = RecordingReporter(tmp_path / device)
        train(task, reporter, torch.device(device))
        curves.append(reporter.curve(RunMetric.LOSS))
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)

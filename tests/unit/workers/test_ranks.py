import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny_model import write_addition_rows
from tests.unit.workers.recording import TRAIN_ID, run, task_for
from workers.errors import DataInvalidError
from workers.specs import HypLoraSpec, RunMetric
from workers.train_setup import TrainTask

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).parents[3]


def run_ranks(
    tasks: Sequence[TrainTask], folder: Path, resume_from: Path | tuple[()] = ()
) -> list[tuple[dict[int, dict[str, float]], dict[int, Path], Any]]:
    """Train with one gloo process for each task; metrics, checkpoints and outcome of each."""
    folder.mkdir()
    for rank, task in enumerate(tasks):
        (folder / f"rank-{rank}.task").write_bytes(pickle.dumps((task, resume_from)))
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.unit.workers.rank_main", str(folder)],
            cwd=REPOSITORY,
            env=os.environ | {"RANK": str(rank), "WORLD_SIZE": str(len(tasks))},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(len(tasks))
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=400)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [
        pickle.loads((folder / f"rank-{rank}.outcome").read_bytes()) for rank in range(len(tasks))
    ]


def test_two_ranks_train_as_one_does(tiny_model_dir: Path, tmp_path: Path) -> None:
    rows = write_addition_rows(tmp_path / "rows.jsonl", num_rows=28)
    task = task_for(
        tiny_model_dir, rows, adapter=HypLoraSpec(learn_curvature=True), batch_size=4,
        micro_batch_tokens=1, num_epochs=1, data={"validation_rows": 7}, eval_every_steps=2,
        checkpoint_every_steps=3,
    )  # fmt: skip
    alone, result = run(task, tmp_path / "alone")
    assert result.total_steps == 6  # of 21 rows, so that the last step leaves a rank without one
    pair = run_ranks([task, task], tmp_path / "pair")
    (history, checkpoints, outcome), (others_history, others_checkpoints, others_outcome) = pair
    for metric in (
        RunMetric.LOSS,
        RunMetric.GRADIENT_NORM,
        RunMetric.CURVATURE,
        RunMetric.EVAL_LOSS,
    ):
        curve = [values[metric] for values in history.values() if metric in values]
        assert curve == pytest.approx(alone.curve(metric), rel=1e-4)
        assert curve == [values[metric] for values in others_history.values() if metric in values]
    assert outcome.num_tokens == result.num_tokens == others_outcome.num_tokens
    assert sorted(checkpoints) == [3, 6]
    assert others_checkpoints == {}
    expected = load_file(alone.kept[6] / "adapter" / "adapter_model.safetensors")
    found = load_file(checkpoints[6] / "adapter" / "adapter_model.safetensors")
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-2, atol=1e-4, msg=name)


def test_two_ranks_resume_what_one_began(tiny_model_dir: Path, rows: Path, tmp_path: Path) -> None:
    task = task_for(tiny_model_dir, rows, max_steps=4, checkpoint_every_steps=2)
    alone, result = run(task, tmp_path / "alone")
    pair = run_ranks([task, task], tmp_path / "pair", resume_from=alone.kept[2])
    history, _, outcome = pair[0]
    assert sorted(history) == [3, 4]
    curve = [values[RunMetric.LOSS] for values in history.values()]
    assert curve == pytest.approx(alone.curve(RunMetric.LOSS)[2:], rel=1e-4)
    assert outcome.num_tokens == result.num_tokens


def test_what_only_one_rank_lacks_fails_every_rank(
    tiny_model_dir: Path, rows: Path, tmp_path: Path
) -> None:
    task = task_for(tiny_model_dir, rows, max_steps=1)
    lacking = replace(task, files={TRAIN_ID: tmp_path / "not-on-this-machine.jsonl"})
    for _, _, outcome in run_ranks([task, lacking], tmp_path / "pair"):
        assert isinstance(outcome, DataInvalidError)
        assert "not-on-this-machine" in str(outcome)


def test_two_ranks_with_a_sharded_base_model_train_as_one_does(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    rows = write_addition_rows(tmp_path / "rows.jsonl", num_rows=21)
    settings = {
        "adapter": HypLoraSpec(learn_curvature=True), "batch_size": 4, "num_epochs": 1,
        "data": {"validation_rows": 4}, "micro_batch_tokens": 40, "checkpoint_every_steps": 3,
    }  # fmt: skip
    alone, _ = run(task_for(tiny_model_dir, rows, **settings), tmp_path / "alone")
    task = task_for(tiny_model_dir, rows, **settings, shard_base_model=True)
    (history, kept, _), (others_history, _, _) = run_ranks([task, task], tmp_path / "pair")
    for metric in (RunMetric.LOSS, RunMetric.GRADIENT_NORM, RunMetric.EVAL_LOSS):
        curve = [values[metric] for values in history.values() if metric in values]
        assert curve == pytest.approx(alone.curve(metric), rel=1e-3)
        assert curve == [values[metric] for values in others_history.values() if metric in values]
    (resumed, _, _), _ = run_ranks([task, task], tmp_path / "again", resume_from=kept[3])
    assert [values[RunMetric.LOSS] for values in resumed.values()] == [
        values[RunMetric.LOSS] for step, values in history.items() if step > 3
    ]

"""Two gloo processes that train an adapter, under DDP and under FSDP2, against one process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import set_peft_model_state_dict
from torch import Tensor

from tests.unit.hyplora.tuner.rank_main import (
    RankOutcome,
    adapter_gradients,
    logits,
    make_batch,
    make_model,
    make_optimizer,
    train_a_step,
)

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[RankOutcome]:
    """Train once with two processes, for all tests."""
    folder = tmp_path_factory.mktemp("ranks")
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.unit.hyplora.tuner.rank_main", str(folder)],
            cwd=REPOSITORY,
            env=os.environ | {"RANK": str(rank), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=200)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [RankOutcome(**torch.load(folder / f"rank-{rank}.pt")) for rank in range(2)]


def adapters_of_one_process(num_steps: int) -> list[dict[str, Tensor]]:
    model, rows = make_model(), make_batch()
    optimizer = make_optimizer(model)
    adapters = []
    for _ in range(num_steps):
        train_a_step(model, rows, optimizer)
        trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        adapters.append({name: p.detach().clone() for name, p in trainable.items()})
    return adapters


def test_ddp_gradients_are_those_of_the_whole_batch(ranks: list[RankOutcome]) -> None:
    expected = adapter_gradients(make_model(), make_batch())
    assert len(expected) == 3 * 7 * 2  # A, B and K of seven layers in each of two blocks
    for outcome in ranks:
        torch.testing.assert_close(outcome.ddp_gradients, expected)


def test_fsdp_trains_the_adapter_that_one_process_trains(ranks: list[RankOutcome]) -> None:
    before = {name: p for name, p in make_model().named_parameters() if p.requires_grad}
    expected = adapters_of_one_process(num_steps=2)
    for outcome in ranks:
        for found, one_process in zip(outcome.fsdp_adapters, expected, strict=True):
            torch.testing.assert_close(found, one_process, rtol=0, atol=1e-5)
    for name, tensor in expected[0].items():
        assert (tensor - before[name]).abs().max() > 1e-4, name


def test_fsdp_evaluates_with_the_weights_of_the_last_step(ranks: list[RankOutcome]) -> None:
    rows = make_batch()
    for outcome in ranks:
        for adapter, found in zip(outcome.fsdp_adapters, outcome.fsdp_logits, strict=True):
            fresh = make_model()
            saved = {name.replace(".default", ""): tensor for name, tensor in adapter.items()}
            loaded = set_peft_model_state_dict(fresh, saved)
            assert loaded.unexpected_keys == []
            torch.testing.assert_close(found, logits(fresh, rows), rtol=1e-4, atol=1e-4)
        first, second = outcome.fsdp_logits
        assert (first - second).abs().max() > 1e-2

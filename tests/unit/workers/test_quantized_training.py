"""Training on a base model that bitsandbytes quantized, on the CPU."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny_model import write_tiny_model
from tests.unit.workers.recording import run, task_for
from workers.generate import load_with_adapter
from workers.specs import HypLoraSpec, RunMetric

bitsandbytes = pytest.importorskip("bitsandbytes")


@pytest.fixture(scope="module")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # bitsandbytes packs blocks of 64 numbers.
    return write_tiny_model(tmp_path_factory.mktemp("base"), hidden_size=64)


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_an_adapter_is_trained_resumed_and_used_on_a_quantized_base_model(
    quantization: str, base_model: Path, rows: Path, tmp_path: Path
) -> None:
    task = task_for(
        base_model, rows, adapter=HypLoraSpec(learn_curvature=True), quantization=quantization,
        max_steps=20, num_epochs=10, checkpoint_every_steps=10,
    )  # fmt: skip
    straight, _ = run(task, tmp_path / "straight")
    losses = straight.curve(RunMetric.LOSS)
    assert losses[-1] < 0.6 * losses[0]

    resumed, _ = run(task, tmp_path / "resumed", resume_from=straight.kept[10])
    assert resumed.curve(RunMetric.LOSS) == losses[10:]

    # What was learned beside quantized weights holds beside the whole ones.
    adapter = straight.kept[20] / "adapter"
    assert all(
        tensor.dtype is torch.float32
        for tensor in load_file(adapter / "adapter_model.safetensors").values()
    )
    model, _ = load_with_adapter(str(base_model), adapter)
    assert model.peft_config["default"].learn_curvature

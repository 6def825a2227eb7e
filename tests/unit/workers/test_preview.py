"""What is foretold of a training is what it then comes to."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from tests.unit.workers.recording import run, task_for
from workers.adapter import build_adapter
from workers.base_model import load_skeleton
from workers.batches import micro_batches
from workers.data import Example
from workers.errors import RowTooLongError, TargetModulesNotFoundError
from workers.memory import MemoryEstimate, estimate_memory
from workers.packing import ATTENTION_NAME
from workers.preview import preview
from workers.specs import AdapterSpec, HypLoraSpec, LoraSpec, TrainingSpec

ROOT = Path(__file__).parents[3]
LEARNED = HypLoraSpec(learn_curvature=True, learn_norm_scale=True, rank_pattern={"q_proj": 3})


@pytest.mark.parametrize(
    "adapter", [LoraSpec(), HypLoraSpec(), LEARNED], ids=["lora", "hyplora", "learned"]
)
def test_steps_rows_and_parameters_are_those_of_the_training(
    adapter: AdapterSpec, tiny_model_dir: Path, rows: Path, tmp_path: Path
) -> None:
    task = task_for(
        tiny_model_dir, rows, adapter=adapter, data={"validation_rows": 3}, num_epochs=2,
        batch_size=20,
    )  # fmt: skip
    foretold = preview(task, num_workers=1, device="cpu")
    _, result = run(task, tmp_path / "run")
    assert foretold.steps == result.steps == 3
    assert foretold.num_train_rows == result.num_train_rows == 29
    assert foretold.num_held_out_rows == 3
    assert foretold.num_trainable_parameters == result.num_trainable_parameters
    assert 2 * foretold.num_tokens == result.num_tokens


def test_what_would_end_the_training_ends_the_preview(tiny_model_dir: Path, rows: Path) -> None:
    task = task_for(tiny_model_dir, rows)
    data = task.data.model_copy(update={"max_length": 8})
    with pytest.raises(RowTooLongError, match="at most 8"):
        preview(replace(task, data=data), 1, "cpu")
    with pytest.raises(TargetModulesNotFoundError, match="nothing"):
        preview(replace(task, adapter=LoraSpec(target_modules=("nothing",))), 1, "cpu")


def test_a_worker_holds_no_more_rows_than_its_share_of_a_step(
    tiny_model_dir: Path, rows: Path
) -> None:
    task = task_for(tiny_model_dir, rows, batch_size=8, micro_batch_tokens=10_000)
    alone, shared = (preview(task, number, "cpu").memory for number in (1, 4))
    assert alone is not None
    assert shared is not None
    assert alone.activations == pytest.approx(4 * shared.activations, rel=0.05)


def estimate(
    folder: Path,
    adapter: AdapterSpec,
    dtype: str = "float32",
    num_rows: int = 2,
    length: int = 64,
    num_answer: int = 60,
    num_workers: int = 1,
    **training: Any,
) -> MemoryEstimate:
    base = load_skeleton(str(folder), dtype)
    base.set_attn_implementation(ATTENTION_NAME)
    with torch.device("meta"):
        model = build_adapter(base, adapter)
    tokens, is_answer = (
        torch.ones(length, dtype=torch.int32),
        torch.arange(length) >= length - num_answer,
    )
    (batch,) = micro_batches([Example(tokens, is_answer)] * num_rows, num_rows * length)
    memory = estimate_memory(model, batch, TrainingSpec(**training), num_workers, "cpu")
    assert memory is not None
    return memory


def test_weights_gradients_and_moments_are_counted_by_their_size(tiny_model_dir: Path) -> None:
    full, half = (estimate(tiny_model_dir, LoraSpec(), dtype) for dtype in ("float32", "bfloat16"))
    skeleton = load_skeleton(str(tiny_model_dir))
    num_base = sum(parameter.numel() for parameter in skeleton.parameters())
    assert num_base * 4 <= full.base_model <= num_base * 4 + 1024, "buffers are small"
    assert num_base * 2 <= half.base_model <= num_base * 2 + 1024
    assert full.adapter == full.optimizer == half.adapter
    wide = estimate(tiny_model_dir, LoraSpec(r=16))
    assert wide.adapter == 2 * full.adapter
    assert full.total == sum(vars(full).values())


def test_a_quantized_or_sharded_base_model_takes_a_part(tiny_model_dir: Path) -> None:
    whole, eight, four = (
        estimate(tiny_model_dir, LoraSpec(), quantization=kind).base_model
        for kind in (None, "8bit", "4bit")
    )
    skeleton = load_skeleton(str(tiny_model_dir))
    head = skeleton.get_output_embeddings().weight.numel()
    linear = sum(p.numel() for p in skeleton.parameters() if p.ndim == 2) - head
    assert whole - eight == 3 * linear
    assert whole - four == pytest.approx(3.4375 * linear, rel=1e-3)
    sharded = estimate(tiny_model_dir, LoraSpec(), num_workers=4, shard_base_model=True)
    assert sharded.base_model == whole // 4


def test_gradient_checkpointing_keeps_little_of_each_layer(tiny_model_dir: Path) -> None:
    kept, again = (
        estimate(tiny_model_dir, HypLoraSpec(), gradient_checkpointing=checkpointing).activations
        for checkpointing in (False, True)
    )
    assert again < 0.9 * kept  # of two layers, one is computed again at a time


def test_activations_grow_with_rows_and_lengths(tiny_model_dir: Path) -> None:
    one = estimate(tiny_model_dir, HypLoraSpec())
    more_rows = estimate(tiny_model_dir, HypLoraSpec(), num_rows=4)
    longer = estimate(tiny_model_dir, HypLoraSpec(), length=128)
    assert more_rows.activations == pytest.approx(2 * one.activations, rel=0.02)
    assert longer.activations > 2 * one.activations, "attention grows with the square"
    assert more_rows.logits == 2 * one.logits
    assert one.logits == 2 * 60 * 259 * 8, "log-softmax and its gradient in float32"
    half = estimate(tiny_model_dir, HypLoraSpec(), "bfloat16")
    assert half.logits == 2 * 60 * 259 * 10, "and what comes out of the head"


def test_short_answers_still_need_the_logits_of_a_whole_row_at_the_end(
    tiny_model_dir: Path,
) -> None:
    assert estimate(tiny_model_dir, LoraSpec(), num_answer=1).logits == 2 * 64 * 259 * 4


def test_a_forward_pass_that_reads_its_tensors_has_no_estimate(tiny_model_dir: Path) -> None:
    base = load_skeleton(str(tiny_model_dir))
    with torch.device("meta"):
        model = build_adapter(base, LoraSpec())
    base.model.register_forward_hook(lambda *call: call[2].last_hidden_state.sum().item())
    example = Example(torch.ones(8, dtype=torch.int32), torch.arange(8) >= 4)
    (batch,) = micro_batches([example], 8)
    assert estimate_memory(model, batch, TrainingSpec(), 1, "cpu") is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("method", "dtype"), [("lora", "float32"), ("hyplora", "bfloat16")])
def test_the_estimate_is_within_a_factor_of_two_of_a_real_step(
    method: str, dtype: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    base = write_small_llama(tmp_path / "base", tokenizer)
    rows = tmp_path / "rows.jsonl"
    row = {"instruction": "a" * 380, "output": "b" * 100}
    rows.write_text(4 * (json.dumps(row) + "\n"))
    adapter: AdapterSpec = LoraSpec() if method == "lora" else HypLoraSpec()
    task = task_for(
        base,
        rows,
        adapter=adapter,
        dtype=dtype,
        num_epochs=1,
        batch_size=4,
        micro_batch_tokens=4096,
    )
    foretold = preview(task, num_workers=1, device="cpu").memory
    assert foretold is not None

    measured = measure(base, rows, method, dtype, tmp_path / "run")

    training = foretold.total - foretold.framework
    assert training > 100e6, "the model is large enough to be seen"
    assert 0.5 < training / (measured["peak"] - measured["before"]) < 2
    assert 0.5 < foretold.framework / measured["before"] < 2


def write_small_llama(folder: Path, tokenizer: PreTrainedTokenizerBase) -> Path:
    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def measure(base: Path, rows: Path, method: str, dtype: str, folder: Path) -> dict[str, int]:
    """Resident memory of a process that trains one step, before the model came and at the peak."""
    process = subprocess.run(
        [sys.executable, "-m", "tests.unit.workers.peak_main", base, rows, method, dtype, folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    answer: dict[str, int] = json.loads(process.stdout.splitlines()[-1])
    return answer

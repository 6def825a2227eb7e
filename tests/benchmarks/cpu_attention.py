"""Compares attention kernels in training steps on a CPU, by processor time of one thread.

    python tests/benchmarks/cpu_attention.py BASE_MODEL ROWS.jsonl

AMD EPYC with AVX-512 BF16, torch 2.13, SmolLM2-135M-Instruct in bfloat16, HypLoRA r = 8, batches of
4 rows: seconds of the fastest of 5 steps.

     row    sdpa   eager
      64    0.95    0.84
     128    1.78    1.53
     256    3.36    3.05
     512    7.70    6.73

Eager attention keeps its probabilities for the backward pass, rows x heads x time^2 in each layer:
0.4 GB at 256 tokens here, 1.7 GB at 512.
"""

import argparse
import time
from pathlib import Path

import torch

from workers import packing
from workers.adapter import build_adapter
from workers.base_model import load_base_model, load_tokenizer
from workers.batches import micro_batches
from workers.data import Example, tokenize
from workers.packing import use_packed_attention
from workers.sources import read_rows
from workers.specs import HypLoraSpec, TrainingSpec
from workers.train_step import AnswerLoss, build_optimizer, train_step

NUM_STEPS = 5


def seconds_of_step(loss_module: AnswerLoss, rows: list[Example]) -> float:
    """Processor time of the fastest of a few steps over the same rows."""
    optimizer = build_optimizer(loss_module, TrainingSpec())
    (batch,) = micro_batches(rows, sum(row.num_tokens for row in rows))
    num_answer_tokens = sum(row.num_answer_tokens for row in rows)
    times = []
    for _ in range(NUM_STEPS + 1):
        started = time.process_time()
        train_step(loss_module, optimizer, [batch], num_answer_tokens, max_grad_norm=1.0)
        times.append(time.process_time() - started)
    return min(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base_model")
    parser.add_argument("rows", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = load_tokenizer(options.base_model)
    ((_, row), *_) = read_rows(options.rows.absolute().as_uri(), name="ROWS")
    (example,) = tokenize([(1, row)], tokenizer)
    model = load_base_model(options.base_model)
    assert use_packed_attention(model)
    loss_module = AnswerLoss(build_adapter(model, HypLoraSpec())).train()
    print(f"{'row':>8}{'sdpa':>8}{'eager':>8}")
    for length in (64, 128, 256, 512):
        tokens = example.input_ids.repeat(-(-length // example.num_tokens))[:length]
        rows = [Example(tokens, torch.arange(length) >= length - 16)] * 4
        seconds = {}
        for kernel, bound in {"sdpa": 0, "eager": 512}.items():
            packing.SHORT_ROW = bound
            seconds[kernel] = seconds_of_step(loss_module, rows)
        print(f"{length:8d}{seconds['sdpa']:8.2f}{seconds['eager']:8.2f}")


if __name__ == "__main__":
    main()

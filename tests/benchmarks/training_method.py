"""One method of tests/benchmarks/training.py, in a process of its own.

Started with its `MethodConfig` as JSON. Each line of its input is a request for one training, each
line of its output tells how that went. Every training starts from the same weights and reads the
same rows in the same order, but for the variants that order rows themselves.
"""

import gc
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    DataCollatorForSeq2Seq,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from workers.adapter import build_adapter
from workers.base_model import context_length, load_config, load_tokenizer
from workers.batches import IGNORED_LABEL, num_steps, rows_of_step
from workers.data import Example
from workers.prepare_data import prepare_data
from workers.reporter import SilentReporter
from workers.seeds import derive_seed
from workers.specs import DataSpec, HypLoraSpec, LoraSpec, RunMetric, TrainingSpec
from workers.train_loop import TrainTask, train

LIBRARIES = ("ours", "padded", "trl")


@dataclass(frozen=True)
class MethodConfig:
    """What a method process trains, and how."""

    library: str
    """One of `LIBRARIES`."""

    base_model: str
    adapter: dict[str, Any]
    """`LoraSpec` or `HypLoraSpec`; the other libraries train the LoRA alone."""

    training: dict[str, Any]
    """`TrainingSpec`, whose batch size, schedule, seed and dtype hold for every library."""

    threads: int
    micro_batch: int = 16
    """Rows in one forward pass of the padded loop and of TRL."""

    arguments: dict[str, Any] = field(default_factory=dict)
    """Further arguments of TRL's SFTConfig."""

    attention: str = "sdpa"
    """Attention of the padded loop and of TRL."""


@dataclass
class Training:
    """How one training went."""

    seconds: float = 0.0
    """From the begin of the first step to the end of the last."""

    num_tokens: int = 0
    """Tokens trained on, padding aside."""

    num_answer_tokens: int = 0
    """Tokens that counted in the loss."""

    losses: list[float] = field(default_factory=list)
    """Of each step: nats an answer token of the whole step."""

    step_ends: list[float] = field(default_factory=list)
    """When each step ended, in seconds of one clock."""

    peak_bytes: int = 0
    """Most memory of this process, over its life until the last step's end."""


def train_ours(config: MethodConfig, rows: Path) -> Training:
    """Train by this project's loop."""
    measured = Training()

    class Recorder(SilentReporter):
        """Notes what a reporter is told."""

        def metrics(self, step: int, values: Mapping[str, float]) -> None:
            measured.step_ends.append(time.perf_counter())
            measured.losses.append(values[RunMetric.LOSS])
            measured.peak_bytes = _peak_bytes()

    training = TrainingSpec(**config.training)
    adapter = (HypLoraSpec if config.adapter["method"] == "hyplora" else LoraSpec)(**config.adapter)
    data = DataSpec(train=rows.as_uri())
    task = TrainTask(config.base_model, adapter, data, {}, training)
    result = train(task, Recorder(), torch.device("cpu"))
    measured.seconds, measured.num_tokens = result.seconds, result.num_tokens
    examples = _examples(config, rows)
    measured.num_answer_tokens = sum(each.num_answer_tokens for each in examples)
    return measured


class StepClock(TrainerCallback):
    """Notes when steps end and what they lost."""

    def __init__(self, measured: Training) -> None:
        self._measured = measured
        self._began = 0.0

    def on_train_begin(self, *_: object, **__: object) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, *_: object, **__: object) -> None:
        now = time.perf_counter()
        self._measured.step_ends.append(now)
        self._measured.seconds = now - self._began
        self._measured.peak_bytes = _peak_bytes()

    def on_log(self, *_: object, logs: dict[str, float], **__: object) -> None:
        if "loss" in logs:
            self._measured.losses.append(float(logs["loss"]))


def train_padded(config: MethodConfig, rows: Path) -> Training:
    """Train by transformers' Trainer, each batch padded to a multiple of 8 as LLM-Adapters does."""
    examples = _examples(config, rows)
    tokenizer = load_tokenizer(config.base_model)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=_adapted(config),
            args=TrainingArguments(folder, **_arguments(config)),
            train_dataset=_dataset(examples),
            data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True, pad_to_multiple_of=8),
        )
        return _run(trainer, examples)


def train_trl(config: MethodConfig, rows: Path) -> Training:
    """Train by TRL's SFTTrainer, given the rows as tokens and labels."""
    from trl import SFTConfig, SFTTrainer

    examples = _examples(config, rows)
    arguments = _arguments(config) | {"max_length": None} | config.arguments
    if arguments.get("packing"):
        num_passes = -(-len(examples) // config.micro_batch)
        length = _pack_length(examples, num_passes)
        arguments |= {"max_length": length, "per_device_train_batch_size": 1}
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=_adapted(config),
            args=SFTConfig(folder, **arguments),
            train_dataset=_dataset(examples),
            processing_class=load_tokenizer(config.base_model),
        )
        return _run(trainer, examples)


def _run(trainer: Trainer, examples: list[Example]) -> Training:
    _check_tokens(trainer, examples)
    measured = Training(
        num_tokens=sum(each.num_tokens for each in examples),
        num_answer_tokens=sum(each.num_answer_tokens for each in examples),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(StepClock(measured))
    trainer.train()
    return measured


def _check_tokens(trainer: Trainer, examples: list[Example]) -> None:
    """Hold the rows that a trainer will read to ours: tokens, and those that are learned."""
    read = trainer.train_dataset
    if "seq_lengths" in read.column_names:
        lengths = sorted(length for pack in read["seq_lengths"] for length in pack)
        assert lengths == sorted(each.num_tokens for each in examples)
    else:
        assert [list(ids) for ids in read["input_ids"]] == [
            each.input_ids.tolist() for each in examples
        ]
    learned = sum(label != IGNORED_LABEL for labels in read["labels"] for label in labels)
    assert learned == sum(each.num_answer_tokens for each in examples)


def _examples(config: MethodConfig, rows: Path) -> list[Example]:
    """The rows as this project tokenizes them, in the order in which its loop takes them."""
    training = TrainingSpec(**config.training)
    bound = context_length(load_config(config.base_model))
    data = DataSpec(train=rows.as_uri())
    examples = prepare_data(data, {}, load_tokenizer(config.base_model), bound).train
    steps = range(num_steps(len(examples), training))
    return [examples[at] for step in steps for at in rows_of_step(len(examples), training, step)]


def _dataset(examples: list[Example]) -> Dataset:
    labels = [
        each.input_ids.long().masked_fill(~each.is_answer, IGNORED_LABEL).tolist()
        for each in examples
    ]
    return Dataset.from_dict(
        {
            "input_ids": [each.input_ids.tolist() for each in examples],
            "attention_mask": [[1] * each.num_tokens for each in examples],
            "labels": labels,
            "length": [each.num_tokens for each in examples],
        }
    )


def _adapted(config: MethodConfig) -> PeftModel:
    """The base model with a LoRA of the weights that this project's loop starts from."""
    training = TrainingSpec(**config.training)
    base = AutoModelForCausalLM.from_pretrained(
        config.base_model,
        dtype="auto" if training.dtype == "auto" else getattr(torch, training.dtype),
        attn_implementation=config.attention,
    )
    base.requires_grad_(requires_grad=False)
    torch.manual_seed(derive_seed(training.seed, "initialisation"))
    return build_adapter(base, LoraSpec(**config.adapter))


def _arguments(config: MethodConfig) -> dict[str, Any]:
    training = TrainingSpec(**config.training)
    return {
        "num_train_epochs": training.num_epochs,
        "per_device_train_batch_size": config.micro_batch,
        "gradient_accumulation_steps": training.batch_size // config.micro_batch,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": training.warmup_steps,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "optim": "adamw_torch_fused",
        "bf16": False,
        "gradient_checkpointing": False,
        "train_sampling_strategy": "sequential",
        "dataloader_pin_memory": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": training.seed,
    }


def _pack_length(examples: list[Example], num_passes: int) -> int:
    """The shortest packs that are no more than the passes without packing."""
    from trl import pack_dataset

    rows = _dataset(examples).select_columns(["input_ids"])
    total = sum(each.num_tokens for each in examples)
    length = max(-(-total // num_passes), *(each.num_tokens for each in examples))
    while len(pack_dataset(rows, length, "bfd")) > num_passes:
        length += 1
    return length


def _peak_bytes() -> int:
    in_kib = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * in_kib


def main() -> None:
    """Answer each request on a line of its own; what libraries print goes to standard error."""
    config = MethodConfig(**json.loads(sys.argv[1]))
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    torch.set_num_threads(config.threads)
    disable_progress_bars()
    methods = {"ours": train_ours, "padded": train_padded, "trl": train_trl}
    for line in sys.stdin:
        measured = methods[config.library](config, Path(line.strip()))
        gc.collect()
        print(json.dumps(asdict(measured)), file=answers, flush=True)


if __name__ == "__main__":
    main()

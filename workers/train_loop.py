"""The training of one adapter, from rows to the last checkpoint, as every rank runs it.

Runs alone or in an initialised process group; the world decides nothing about the outcome but
rounding.
"""

import hashlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Protocol

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from hyplora import layer_curvatures, record_geometry
from workers.adapter import build_adapter, verify_saved
from workers.base_model import context_length, load_base_model, load_config, load_tokenizer
from workers.batches import Batching, num_steps, rows_of_step
from workers.checkpoint import ADAPTER_FOLDER, TrainState, load_checkpoint, save_checkpoint
from workers.data import Example, load_examples, split_held_out
from workers.errors import BaseModelUnusableError, LossNotFiniteError
from workers.ranks import failing_together, rank, synchronise
from workers.seeds import derive_seed
from workers.specs import AdapterSpec, DataSpec, RunMetric, TrainingSpec
from workers.train_step import (
    AnswerLoss,
    StepResult,
    build_optimizer,
    evaluate,
    learning_rate_at,
    train_step,
)

GEOMETRY_QUANTITIES = (
    "curvature",
    "norm_scale",
    "mean_radius",
    "cap_rate",
    "mean_gain",
    "max_gain",
)
"""What is measured of each layer's geometry, as `hyplora.LayerGeometry` names it."""

SHORT_ROW = 256
"""Up to this many tokens, eager attention beats torch's fused kernel on a CPU at little memory.

It saves 10 to 15 % of a step: tests/benchmarks/cpu_attention.py.
"""


@dataclass(frozen=True)
class TrainTask:
    """What to train, on which rows."""

    base_model: str
    """A folder, a Hugging Face id or an MLflow URI."""

    adapter: AdapterSpec
    """The adapter to train."""

    data: DataSpec
    """How rows are held out and bounded; its file ids are resolved by the paths below."""

    train_path: Path
    """Training rows, JSON lines, plain or gzip."""

    validation_path: Path | None
    """Held-out rows; None to hold out `data.validation_rows` of the training rows."""

    training: TrainingSpec
    """How the adapter is optimised."""


@dataclass(frozen=True)
class TrainResult:
    """What a training came to, over all attempts."""

    steps: int
    """Optimizer steps done."""

    total_steps: int
    """Optimizer steps that the task asked for."""

    train_loss: float
    """Mean loss over the last step's answer tokens, in nats."""

    eval_loss: float | None
    """Mean loss over the held-out answer tokens after the last step; None without such rows."""

    num_trainable_parameters: int
    """Size of the adapter."""

    num_train_rows: int
    """Rows trained on, held-out ones aside."""

    num_tokens: int
    """Tokens trained on, padding aside, over all ranks and epochs."""

    seconds: float
    """Time spent in the loop."""


class Reporter(Protocol):
    """Where a training reports to; called on every rank at the same steps."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Take the metrics after a step; rank 0's count. Must not block."""

    def checkpoint(self, step: int, directory: Path | None) -> None:
        """Take a checkpoint, given on rank 0 alone; the directory is removed on return."""

    def latest_checkpoint(self) -> AbstractContextManager[Path | None]:
        """The checkpoint to resume from, readable within the context; None to start anew."""


def train(task: TrainTask, reporter: Reporter, device: torch.device) -> TrainResult:
    """Train the adapter that a task asks for, resuming from the reporter's latest checkpoint.

    Deterministic on a CPU: data order, initialisation and dropout follow from the seed, so that a
    resumed training ends in the very weights of one that was never interrupted. Reseeds torch's
    global generator at every step.

    Args:
        task: What to train.
        reporter: Receives metrics and checkpoints.
        device: Where this rank computes.

    Raises:
        WorkerError: For what a user can act on; see `workers.errors`.
    """
    training = task.training
    if device.type == "cuda":
        torch.cuda.set_device(device)  # NCCL's collectives of Python objects go by it
    with failing_together():
        tokenizer = load_tokenizer(task.base_model)
        train_rows, held_out_rows = _load_rows(task, tokenizer)
        longest = max(row.num_tokens for row in train_rows + held_out_rows)
        model = _load_model(task, device, longest).to(device)
        optimizer = build_optimizer(model, training)
        state = TrainState(_digest(task, train_rows))
        with reporter.latest_checkpoint() as folder:
            if folder is not None:
                state = load_checkpoint(folder, model, optimizer, state.task_digest)
    answer_loss = AnswerLoss(model).train()
    loss_module = synchronise(answer_loss)
    batching = Batching(training.micro_batch_size, tokenizer.pad_token_id)
    evaluation = batching.of_evaluation(held_out_rows)
    total_steps = num_steps(len(train_rows), training)
    first_step, started, seconds_before = state.step, time.perf_counter(), state.seconds

    for step in range(first_step, total_steps):
        step_started = time.perf_counter()
        torch.manual_seed(derive_seed(training.seed, "dropout", step, rank()))
        learning_rate = learning_rate_at(step, total_steps, training)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        rows = [train_rows[index] for index in rows_of_step(len(train_rows), training, step)]
        num_tokens = sum(row.num_tokens for row in rows)
        num_answer_tokens = sum(row.num_answer_tokens for row in rows)
        with _geometry(model, step + 1, training.geometry_every_steps) as geometry:
            result = train_step(
                loss_module,
                optimizer,
                batching.of_step(rows),
                num_answer_tokens,
                training.max_grad_norm,
            )
        if not result.is_finite:
            raise LossNotFiniteError(
                f"at step {step + 1} the loss was {result.loss} and the gradient norm "
                f"{result.gradient_norm}; try a smaller training.learning_rate, more "
                "training.warmup_steps, or training.dtype float32"
            )
        now = time.perf_counter()
        state = replace(
            state,
            step=step + 1,
            train_loss=result.loss,
            num_tokens=state.num_tokens + num_tokens,
            seconds=seconds_before + now - started,
        )
        seconds_a_step = (now - started) / (state.step - first_step)
        values = (
            _metrics_of(result, state.step, learning_rate, model)
            | geometry
            | {
                RunMetric.TOKENS_PER_S: num_tokens / (now - step_started),
                RunMetric.TOTAL_STEPS: total_steps,
                RunMetric.SECONDS_LEFT: seconds_a_step * (total_steps - state.step),
            }
        )
        if held_out_rows and _is_due(state.step, training.eval_every_steps, total_steps):
            values[RunMetric.EVAL_LOSS] = evaluate(answer_loss, evaluation)
            state = replace(state, eval_loss=values[RunMetric.EVAL_LOSS])
        reporter.metrics(state.step, values)
        if _is_due(state.step, training.checkpoint_every_steps, total_steps):
            probe = train_rows[0] if state.step == total_steps else None
            _report_checkpoint(reporter, model, optimizer, state, probe)

    return _result_of(state, total_steps, len(train_rows), model)


def _load_rows(
    task: TrainTask, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[Example], list[Example]]:
    """The rows to train on and the held-out ones."""
    config = load_config(task.base_model)
    bounds = (task.data.max_length, context_length(config))
    max_length = min((bound for bound in bounds if bound is not None), default=None)
    rows = load_examples(task.train_path, tokenizer, max_length, name="data.train")
    if task.validation_path is not None:
        path = task.validation_path
        held_out = load_examples(path, tokenizer, max_length, name="data.validation")
    else:
        rows, held_out = split_held_out(rows, task.data.validation_rows, task.data.seed)
    highest = max(int(row.input_ids.max()) for row in rows + held_out)
    vocab_size = config.get_text_config().vocab_size
    if highest >= vocab_size:
        raise BaseModelUnusableError(
            f"the tokenizer of base_model {task.base_model!r} makes token {highest} and the model "
            f"knows {vocab_size} tokens; give the model the tokenizer it was trained with"
        )
    return rows, held_out


def _load_model(task: TrainTask, device: torch.device, longest_row: int) -> PeftModel:
    base = load_base_model(task.base_model, task.training.dtype)
    if device.type == "cpu" and longest_row <= SHORT_ROW:
        base.set_attn_implementation("eager")
    torch.manual_seed(derive_seed(task.training.seed, "initialisation"))
    return build_adapter(base, task.adapter)


@contextmanager
def _geometry(model: PeftModel, step: int, every: int | None) -> Iterator[dict[str, float]]:
    """Metrics of each HypLoRA layer's geometry in a step, complete after the context; or none."""
    metrics: dict[str, float] = {}
    if every is None or step % every:
        yield metrics
        return
    with record_geometry(model) as record:
        yield metrics
    for name, layer in record.read().items():
        short_name = name.removeprefix("base_model.model.")
        for quantity in GEOMETRY_QUANTITIES:
            metrics[f"geometry/{quantity}/{short_name}"] = getattr(layer, quantity)


def _metrics_of(
    result: StepResult, step: int, learning_rate: float, model: PeftModel
) -> dict[str, float]:
    """What an optimizer step says about itself."""
    values: dict[str, float] = {
        RunMetric.STEP: step,
        RunMetric.LOSS: result.loss,
        RunMetric.LEARNING_RATE: learning_rate,
        RunMetric.GRADIENT_NORM: result.gradient_norm,
    }
    if curvatures := layer_curvatures(model):
        values[RunMetric.CURVATURE] = fmean(curvatures.values())
    return values


def _result_of(
    state: TrainState, total_steps: int, num_train_rows: int, model: PeftModel
) -> TrainResult:
    assert state.train_loss is not None, "a training has at least one step"
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return TrainResult(
        steps=state.step,
        total_steps=total_steps,
        train_loss=state.train_loss,
        eval_loss=state.eval_loss,
        num_trainable_parameters=sum(parameter.numel() for parameter in trainable),
        num_train_rows=num_train_rows,
        num_tokens=state.num_tokens,
        seconds=state.seconds,
    )


def _digest(task: TrainTask, rows: Sequence[Example]) -> str:
    """Tells one training from another, so that none resumes from a foreign checkpoint."""
    settings = [
        task.base_model,
        *(spec.model_dump_json() for spec in (task.adapter, task.data, task.training)),
        str(sum(row.num_tokens for row in rows)),
    ]
    return hashlib.sha256("\n".join(settings).encode()).hexdigest()


def _is_due(step: int, every: int | None, total_steps: int) -> bool:
    return step == total_steps or (every is not None and step % every == 0)


def _report_checkpoint(
    reporter: Reporter,
    model: PeftModel,
    optimizer: torch.optim.Optimizer,
    state: TrainState,
    probe: Example | None,
) -> None:
    """Write a checkpoint; with a probe, only if its adapter loads and answers that as trained."""
    with tempfile.TemporaryDirectory(prefix="hyplora-checkpoint-") as name:
        folder = Path(name)
        with failing_together():
            if rank() == 0:
                save_checkpoint(folder, model, optimizer, state)
                if probe is not None:
                    input_ids = probe.input_ids[None].to(model.device)
                    verify_saved(model, folder / ADAPTER_FOLDER, input_ids)
        reporter.checkpoint(state.step, folder if rank() == 0 else None)

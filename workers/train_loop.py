"""The training of one adapter, from rows to the last checkpoint, as every rank runs it.

Runs alone or in an initialised process group; the world decides nothing about the outcome but
rounding.
"""

import logging
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import torch
from peft import PeftModel

from hyplora import layer_curvatures, record_geometry
from workers.adapter import verify_saved
from workers.batches import num_steps, rows_of_step
from workers.checkpoint import ADAPTER_FOLDER, TrainState, load_checkpoint, save_checkpoint
from workers.data import Example
from workers.diagnosis import explain_non_finite
from workers.errors import (
    CheckpointDamagedError,
    LossNotFiniteError,
    OutOfMemoryError,
)
from workers.ranks import decided_by_first, failing_together, gathered, rank, synchronise
from workers.reporter import Reporter
from workers.seeds import derive_seed
from workers.specs import RunMetric
from workers.train_setup import TrainSetup, TrainTask, prepare
from workers.train_step import (
    AnswerLoss,
    StepResult,
    evaluate,
    learning_rate_at,
    train_step,
)

logger = logging.getLogger(__name__)

GEOMETRY_QUANTITIES = (
    "curvature",
    "norm_scale",
    "mean_radius",
    "cap_rate",
    "mean_gain",
    "max_gain",
)
"""What is measured of each layer's geometry, as `hyplora.LayerGeometry` names it."""


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

    @property
    def is_complete(self) -> bool:
        """Whether all steps are done; one that was asked to stop has a checkpoint instead."""
        return self.steps == self.total_steps


def train(
    task: TrainTask,
    reporter: Reporter,
    device: torch.device,
    prepare: Callable[[TrainTask, torch.device], TrainSetup] = prepare,
) -> TrainResult:
    """Train the adapter that a task asks for, resuming from the newest checkpoint that is whole.

    Deterministic on a CPU: data order, initialisation and dropout follow from the seed, so that a
    resumed training ends in the very weights of one that was never interrupted. Reseeds torch's
    global generator at every step.

    Args:
        task: What to train.
        reporter: Receives metrics and checkpoints.
        device: Where this rank computes.
        prepare: Builds what the loop works on; by default from nothing.

    Raises:
        WorkerError: For what a user can act on; see `workers.errors`.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)  # NCCL's collectives of Python objects go by it
    with _explaining_memory():
        with failing_together():
            setup = prepare(task, device)
        reporter.data_report(setup.data.report)
        state = _resume(reporter, setup)
        return _run(task, setup, state, reporter)


def _run(task: TrainTask, setup: TrainSetup, state: TrainState, reporter: Reporter) -> TrainResult:
    """The loop: step, evaluate, report, keep; until all steps are done or a stop is asked for."""
    training, model = task.training, setup.model
    train_rows, held_out_rows = setup.data.train, setup.data.held_out
    answer_loss = AnswerLoss(model).train()
    loss_module = synchronise(answer_loss, is_sharded=training.shard_base_model)
    evaluation = setup.batching.of_evaluation(held_out_rows)
    total_steps = num_steps(len(train_rows), training)
    first_step, started, seconds_before = state.step, time.perf_counter(), state.seconds
    minutes = training.checkpoint_every_minutes
    seconds_between, last_kept = math.inf if minutes is None else 60 * minutes, started

    for step in range(first_step, total_steps):
        step_started = time.perf_counter()
        torch.manual_seed(derive_seed(training.seed, "dropout", step, rank()))
        learning_rate = learning_rate_at(step, total_steps, training)
        for group in setup.optimizer.param_groups:
            group["lr"] = learning_rate
        rows = [train_rows[index] for index in rows_of_step(len(train_rows), training, step)]
        batches = setup.batching.of_step(rows)
        num_tokens = sum(row.num_tokens for row in rows)
        num_answer_tokens = sum(row.num_answer_tokens for row in rows)
        with _geometry(model, step + 1, training.geometry_every_steps) as geometry:
            result = train_step(
                loss_module, setup.optimizer, batches, num_answer_tokens, training.max_grad_norm
            )
        if not result.is_finite:
            # Sharded ranks would have to stop looking at the same batch.
            own = None if setup.batching.is_sharded else explain_non_finite(answer_loss, batches)
            lines = ", ".join(map(str, sorted(row.line for row in rows)))
            cause = next(filter(None, gathered(own)), f"Its rows were lines {lines}.")
            raise LossNotFiniteError(
                f"at step {step + 1} the loss was {result.loss} and the gradient norm "
                f"{result.gradient_norm}. {cause} Try a smaller training.learning_rate, more "
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
                RunMetric.NUM_TOKENS: state.num_tokens,
                RunMetric.SECONDS_LEFT: seconds_a_step * (total_steps - state.step),
            }
        )
        if held_out_rows and _is_due(state.step, training.eval_every_steps, total_steps):
            values[RunMetric.EVAL_LOSS] = evaluate(answer_loss, evaluation)
            state = replace(state, eval_loss=values[RunMetric.EVAL_LOSS])
        reporter.metrics(state.step, values)
        is_late, must_stop = decided_by_first(
            time.perf_counter() - last_kept >= seconds_between, reporter.stop_requested()
        )
        is_due = _is_due(state.step, training.checkpoint_every_steps, total_steps)
        if is_due or is_late or must_stop:
            last_kept = time.perf_counter()
            probe = train_rows[0] if state.step == total_steps else None
            _keep(reporter, setup, state, probe)
        if must_stop:
            break

    return _result_of(state, total_steps, len(train_rows), model)


def _resume(reporter: Reporter, setup: TrainSetup) -> TrainState:
    """Bring the model to the newest checkpoint that is whole; to none if there is none.

    Raises:
        CheckpointDamagedError: If there are checkpoints and all are damaged.
        AdapterUnusableError: If one is of another training.
    """
    damage: CheckpointDamagedError | None = None
    for lent in reporter.checkpoints():
        try:
            with lent as folder, failing_together():
                state = load_checkpoint(folder, setup.model, setup.optimizer, setup.digest)
            logger.info("going on after step %d", state.step)
            return state
        except CheckpointDamagedError as error:
            logger.warning("%s; trying the checkpoint before it", error)
            damage = error
    if damage is not None:
        raise CheckpointDamagedError(
            f"{damage}, and no older checkpoint is whole; submit a new job, which starts anew"
        )
    return TrainState(setup.digest)


@contextmanager
def _explaining_memory() -> Iterator[None]:
    """Say what helps where memory ran out."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # The CPU's allocator has no exception of its own.
        is_known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not is_known and "can't allocate memory" not in str(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OutOfMemoryError(
            f"a worker ran out of memory ({reason}); try a smaller training.micro_batch_tokens, "
            "training.gradient_checkpointing, training.quantization, or training.shard_base_model "
            "with more workers"
        ) from error


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


def _is_due(step: int, every: int | None, total_steps: int) -> bool:
    return step == total_steps or (every is not None and step % every == 0)


def _keep(reporter: Reporter, setup: TrainSetup, state: TrainState, probe: Example | None) -> None:
    """Write a checkpoint; with a probe, only if its adapter loads and answers that as trained."""
    folder = Path(tempfile.mkdtemp(prefix="hyplora-checkpoint-")) if rank() == 0 else None
    try:
        with failing_together():
            if folder is not None:
                save_checkpoint(folder, setup.model, setup.optimizer, state, setup.chat_template)
                if probe is not None and not setup.batching.is_sharded:
                    input_ids = probe.input_ids[None].to(setup.model.device)
                    verify_saved(setup.model, folder / ADAPTER_FOLDER, input_ids)
    except BaseException:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    reporter.checkpoint(state.step, folder)

"""One optimizer step and one evaluation, over micro-batches and ranks.

Every loss is normalised by the answer tokens of the whole step, over all micro-batches and
ranks, so how a step is divided does not change its gradient.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from workers.batches import IGNORED_LABEL, MicroBatch
from workers.ranks import sum_gradients, world_size

if TYPE_CHECKING:
    from jaxtyping import Float
    from peft import PeftModel
    from torch import Tensor

    from workers.specs import TrainingSpec


class AnswerLoss(nn.Module):
    """A causal language model with its summed answer loss, as one module for DDP to wrap."""

    def __init__(self, model: PeftModel) -> None:
        super().__init__()
        self.model = model
        forward = model.get_base_model().forward
        self._selects_logits = "logits_to_keep" in inspect.signature(forward).parameters

    def forward(self, batch: MicroBatch) -> Float[Tensor, ""]:
        """Negative log-likelihood of the labels in nats, summed over those that count.

        Logits are made at `answer_positions` alone, since the head over a large vocabulary costs
        as much as many layers.
        """
        inputs: dict[str, Any] = {"input_ids": batch.input_ids, "use_cache": False}
        if len(batch.row_lengths) > 1:
            inputs |= {"position_ids": batch.position_ids, "row_lengths": batch.row_lengths}
        if self._selects_logits:
            logits = self.model(**inputs, logits_to_keep=batch.answer_positions).logits
        else:
            every = self.model(**inputs).logits
            logits = every.take_along_dim(batch.answer_positions[..., None], dim=1)
        return F.cross_entropy(
            logits.flatten(0, 1).float(),
            batch.labels,
            ignore_index=IGNORED_LABEL,
            reduction="sum",
        )


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step did, the same on every rank."""

    loss: float
    """Mean over the step's answer tokens before the update, in nats."""

    gradient_norm: float
    """Global norm before clipping."""

    @property
    def is_finite(self) -> bool:
        """Whether the update could be applied."""
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


def build_optimizer(model: nn.Module, training: TrainingSpec) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; curvatures and other scalars do not decay."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trainable if parameter.ndim >= 2]
    scalars = [parameter for parameter in trainable if parameter.ndim < 2]
    groups: list[dict[str, Any]] = [{"params": matrices, "weight_decay": training.weight_decay}]
    if scalars:
        groups.append({"params": scalars, "weight_decay": 0.0})
    return torch.optim.AdamW(groups, lr=training.learning_rate, fused=True)


def learning_rate_at(step: int, total_steps: int, training: TrainingSpec) -> float:
    """Linear warm-up, then linear decay to zero.

    Args:
        step: Steps done before this one.
        total_steps: Steps of the whole training.
        training: Peak learning rate and length of the warm-up.
    """
    warmup = training.warmup_steps
    if step < warmup:
        return training.learning_rate * ((step + 1) / warmup)
    return training.learning_rate * ((total_steps - step) / (total_steps - warmup))


def train_step(
    loss_module: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[MicroBatch],
    num_answer_tokens: int,
    max_grad_norm: float,
) -> StepResult:
    """Accumulate the gradients of this rank's micro-batches, average over ranks, clip, update.

    Nothing is updated if the loss or the gradient norm is not finite.

    Args:
        loss_module: `AnswerLoss`, wrapped in DDP where there are several ranks.
        optimizer: Holds the learning rate of this step.
        batches: This rank's share of the step's rows; at least one batch.
        num_answer_tokens: Answer tokens of the step over all ranks.
        max_grad_norm: Bound on the global gradient norm.
    """
    device = next(loss_module.parameters()).device
    summed_loss = torch.zeros((), device=device)
    for number, batch in enumerate(batches, start=1):
        is_last = number == len(batches)
        with _without_synchronisation(loss_module) if not is_last else contextlib.nullcontext():
            loss = loss_module(batch.to(device))
            # DDP averages over ranks what has to be a sum over ranks.
            scale = world_size() if isinstance(loss_module, DistributedDataParallel) else 1
            (loss * (scale / num_answer_tokens)).backward()
        summed_loss += loss.detach()
    trainable = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if world_size() > 1:
        dist.all_reduce(summed_loss)
        if not isinstance(loss_module, DistributedDataParallel):
            sum_gradients(trainable)
    norm = nn.utils.clip_grad_norm_(trainable, max_grad_norm)
    mean_loss, gradient_norm = torch.stack([summed_loss / num_answer_tokens, norm]).tolist()
    result = StepResult(mean_loss, gradient_norm)
    if result.is_finite:
        optimizer.step()
    optimizer.zero_grad()
    return result


@torch.no_grad()
def evaluate(loss_module: AnswerLoss, batches: Iterable[MicroBatch]) -> float:
    """Mean loss over the answer tokens of all ranks' batches, in nats, without dropout.

    Args:
        loss_module: The module itself, not its DDP wrapper.
        batches: This rank's share of the held-out rows; may be empty.
    """
    device = next(loss_module.parameters()).device
    total = torch.zeros(2, dtype=torch.float64, device=device)
    loss_module.eval()
    for batch in batches:
        total[0] += loss_module(batch.to(device))
        total[1] += (batch.labels != IGNORED_LABEL).sum()
    loss_module.train()
    if world_size() > 1:
        dist.all_reduce(total)
    summed_loss, num_answer_tokens = total.tolist()
    return summed_loss / num_answer_tokens


def _without_synchronisation(module: nn.Module) -> contextlib.AbstractContextManager[None]:
    if isinstance(module, DistributedDataParallel):
        return module.no_sync()
    return contextlib.nullcontext()

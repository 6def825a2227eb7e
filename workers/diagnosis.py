"""Finding where numbers stopped being finite."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from hyplora import record_geometry
from workers.batches import MicroBatch
from workers.train_step import AnswerLoss

_SHORT_PREFIX = "model.base_model.model."


@torch.no_grad()
def explain_non_finite(answer_loss: AnswerLoss, batches: Sequence[MicroBatch]) -> str | None:
    """Answer a step's batches again and say which is at fault, and where.

    The model must be as it was in the step: `train_step` updates nothing then. Geometry is measured
    now and not in every step, where it would cost time.

    Args:
        answer_loss: The model with its loss, not wrapped.
        batches: This rank's batches of the step.

    Returns:
        One or two sentences: the batch, the first layer whose output is not finite, and that
        layer's geometry. None where all answers of this rank are finite.
    """
    device = next(answer_loss.parameters()).device
    for number, batch in enumerate(batches, start=1):
        first_layer: list[str] = []
        handles = [
            module.register_forward_hook(_note_non_finite(name, first_layer))
            for name, module in answer_loss.named_modules()
            if not any(module.children())
        ]
        try:
            with record_geometry(answer_loss.model) as record:
                loss = answer_loss(batch.to(device)).item()
        finally:
            for handle in handles:
                handle.remove()
        if math.isfinite(loss):
            continue
        where = f"micro-batch {number} (lines {', '.join(map(str, sorted(batch.lines)))})"
        layer = first_layer[0] if first_layer else "the loss itself"
        geometry = {
            name.removeprefix("base_model.model."): of for name, of in record.read().items()
        }
        adapted = next((name for name in geometry if layer.startswith(name)), None)
        described = ""
        if adapted is not None:
            found = geometry[adapted]
            described = (
                f" Geometry of {adapted}: curvature {found.curvature:.4g}, mean radius "
                f"{found.mean_radius:.4g}, cap rate {found.cap_rate:.4g}, mean gain "
                f"{found.mean_gain:.4g}."
            )
        return f"Not finite first at {layer} in {where}.{described}"
    return None


def _note_non_finite(name: str, found: list[str]) -> object:
    def hook(_: nn.Module, __: object, output: object) -> None:
        if not found and isinstance(output, torch.Tensor) and not output.isfinite().all():
            found.append(name.removeprefix(_SHORT_PREFIX))

    return hook

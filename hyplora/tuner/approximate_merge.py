"""Folds an adapter into the base weights as well as a fixed matrix can, and says how well.

The update of a token is ``B (s g h)`` with ``h = A x``. Among the matrices ``B C A`` the one that
comes nearest on calibration tokens, in least squares of the layer's output, has

    C = (sum s g h h^T) (sum h h^T)^-1,

r x r numbers from r x r sums, whatever the width. What is left is what the gain does differently
from token to token, and is measured, never hidden.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hyplora.errors import CalibrationError, NotMergeableError
from hyplora.tuner.layer import HypLoraLinear
from hyplora.tuner.layer_geometry import token_geometry

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True)
class ApproximateMerge:
    """A model with the nearest fixed matrices in its weights, and how near they are."""

    model: nn.Module
    """The base model, changed; no adapter is left in it."""
    relative_error: float
    """Root of the squared error over the squared update, summed over all layers and tokens."""
    relative_errors: dict[str, float]
    """The same of each layer, by module name; 0 where the adapter does nothing."""


class _Fit:
    """Sums over the calibration tokens of one layer, in float64."""

    def __init__(self, layer: HypLoraLinear, adapter_name: str) -> None:
        self._layer = layer
        self._adapter_name = adapter_name
        self.a = layer.hyplora_A[adapter_name].detach().double()
        self.b = layer.hyplora_B[adapter_name].detach().double()
        r = len(self.a)
        self._hh, self._th, self._tt = (self.a.new_zeros(r, r) for _ in range(3))
        self.num_tokens = 0

    def add(self, x: Float[Tensor, "tokens d_in"]) -> None:
        """Count the tokens of a batch."""
        scale = self._layer.hyplora_settings[self._adapter_name].scale
        factor = scale.factor(self._layer.norm_scale(self._adapter_name))
        _, gain, _ = token_geometry(self._layer, x, self._adapter_name)
        h = x.double() @ self.a.T
        target = h * (gain * factor).double()[:, None]
        self._hh += h.T @ h
        self._th += target.T @ h
        self._tt += target.T @ target
        self.num_tokens += len(x)

    def solve(self) -> tuple[Float[Tensor, "d_out d_in"], float, float]:
        """Return the nearest matrix, the squared error that it leaves, and the squared update."""
        c = self._th @ torch.linalg.pinv(self._hh, hermitian=True)
        gram = self.b.T @ self.b
        left = self._tt - c @ self._th.T - self._th @ c.T + c @ self._hh @ c.T
        error, whole = ((gram * moments).sum().clamp(min=0) for moments in (left, self._tt))
        return self.b @ c @ self.a, error.item(), whole.item()


@torch.no_grad()
def approximate_merge(
    model: nn.Module,
    layers: Mapping[str, HypLoraLinear],
    adapter_name: str,
    calibration_data: Iterable[Mapping[str, Tensor]],
) -> tuple[float, dict[str, float]]:
    """Add to each layer's base weight the nearest fixed matrix to the adapter's update.

    Args:
        model: The adapted model, called on the calibration data as it is.
        layers: Its layers with the adapter, by name.
        adapter_name: The adapter.
        calibration_data: Batches of keyword arguments of the model. Tokens that an attention mask
            of the batch leaves out do not count.

    Returns:
        The relative error over all layers, and that of each.

    Raises:
        NotMergeableError: If a base weight cannot take a matrix up.
        CalibrationError: If no token reaches one of the layers.
    """
    for name, layer in layers.items():
        _require_plain(name, layer.get_base_layer())
    fits = {name: _Fit(layer, adapter_name) for name, layer in layers.items()}
    was_training = model.training
    model.eval()
    for batch in calibration_data:
        with ExitStack() as hooks:
            for name, layer in layers.items():
                hook = partial(_add_inputs, fits[name], batch.get("attention_mask"))
                hooks.enter_context(layer.register_forward_pre_hook(hook))
            model(**batch)
    model.train(was_training)
    if missed := [name for name, fit in fits.items() if not fit.num_tokens]:
        raise CalibrationError(
            f"calibration_data brought no token to {missed[0]} and {len(missed) - 1} more of "
            f"{len(fits)} layers: give batches such as {{'input_ids': ...}} that reach them all"
        )
    solutions = {name: fit.solve() for name, fit in fits.items()}
    for name, (matrix, _, _) in solutions.items():
        base_layer = layers[name].get_base_layer()
        weight = base_layer.get_parameter("weight")
        weight.add_((matrix.T if isinstance(base_layer, Conv1D) else matrix).to(weight.dtype))
    errors = {name: _root_ratio(error, whole) for name, (_, error, whole) in solutions.items()}
    total_error = sum(error for _, error, _ in solutions.values())
    return _root_ratio(total_error, sum(whole for _, _, whole in solutions.values())), errors


def _add_inputs(fit: _Fit, mask: Tensor | None, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
    x = inputs[0]
    if mask is not None and mask.shape == x.shape[:-1]:
        fit.add(x[mask.bool()])
    else:
        fit.add(x.flatten(0, -2))


def _require_plain(name: str, base_layer: nn.Module) -> None:
    weight = base_layer.get_parameter("weight")
    if type(base_layer) not in (nn.Linear, Conv1D) or not weight.is_floating_point():
        raise NotMergeableError(
            f"{name} is a {type(base_layer).__name__} with weights in {weight.dtype}, which cannot "
            f"take a matrix up: load the base model unquantized to merge into it"
        )


def _root_ratio(error: float, whole: float) -> float:
    return (error / whole) ** 0.5 if whole else 0.0

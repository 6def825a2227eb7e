"""What the geometry of every adapted layer is, and what it does to the tokens that pass."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hyplora.gain import Lorentz, radial_gain
from hyplora.tuner.layer import HypLoraLinear

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True)
class LayerGeometry:
    """The geometry of one layer and of the tokens that it was recorded on."""

    curvature: float
    """K, the true one, in units of the norm scale squared."""
    norm_scale: float
    """nu: the unit in which hidden states are measured (length)."""
    num_tokens: int
    """Tokens seen, padding included."""
    num_capped: int
    """How many of them the radius cap clipped."""
    mean_radius: float
    """Mean of ``|x|`` in the projection's unit: ``nu sqrt(K)`` in the Lorentz model."""
    mean_gain: float
    """Mean factor by which the update differs from LoRA's."""
    max_gain: float
    """The largest such factor."""

    @property
    def cap_rate(self) -> float:
        """Share of the tokens that the radius cap clipped."""
        return self.num_capped / self.num_tokens


class GeometryRecord:
    """Sums over the tokens that passed each adapted layer, kept on its device."""

    def __init__(self, layers: dict[str, HypLoraLinear], adapter_name: str) -> None:
        self._layers = layers
        self._adapter_name = adapter_name
        self._sums: dict[str, Tensor] = {}
        self._largest: dict[str, Tensor] = {}

    def add(self, name: str, x: Float[Tensor, "*batch d_in"]) -> None:
        """Count the tokens of a layer's input; does not wait for the device."""
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            tau, gain, is_capped = token_geometry(self._layers[name], x, self._adapter_name)
            values = (torch.ones_like(gain), is_capped, tau, gain)
            sums = torch.stack([value.sum(dtype=torch.float64) for value in values])
            self._sums[name] = self._sums.get(name, 0) + sums
            largest = gain.max().double()
            self._largest[name] = torch.maximum(self._largest.get(name, largest), largest)

    def read(self) -> dict[str, LayerGeometry]:
        """Return what was recorded, by module name, in one transfer.

        Layers through which no token passed are left out.
        """
        seen = {name: self._layers[name] for name in self._sums}
        scales = [
            scale
            for layer in seen.values()
            for scale in (layer.curvature(self._adapter_name), layer.norm_scale(self._adapter_name))
        ]
        rows = [torch.cat([self._sums[name], self._largest[name][None]]) for name in seen]
        numbers = iter(_on_host([*scales, *(value for row in rows for value in row[:, None])]))
        pairs = [(next(numbers), next(numbers)) for _ in seen]
        geometry = {}
        for name, (curvature, norm_scale) in zip(seen, pairs, strict=True):
            count, capped, radius, gain, largest = (next(numbers) for _ in range(5))
            geometry[name] = LayerGeometry(
                curvature=curvature,
                norm_scale=norm_scale,
                num_tokens=round(count),
                num_capped=round(capped),
                mean_radius=radius / count,
                mean_gain=gain / count,
                max_gain=largest,
            )
        return geometry


def token_geometry(
    layer: HypLoraLinear, x: Float[Tensor, "*batch d_in"], adapter_name: str
) -> tuple[Float[Tensor, " tokens"], Float[Tensor, " tokens"], Float[Tensor, " tokens"]]:
    """Compute the radius and the gain of each token in a layer, and whether the cap clips it."""
    projection = layer.hyplora_settings[adapter_name].scale.projection
    curvature, norm_scale = layer.curvature(adapter_name), layer.norm_scale(adapter_name)
    dtype = torch.promote_types(x.dtype, torch.float32)
    rows = x.reshape(-1, x.shape[-1]).to(dtype)
    a, b = (factors[adapter_name].to(dtype) for factors in (layer.hyplora_A, layer.hyplora_B))
    x_norm, update_norm = rows.norm(dim=-1), (rows @ a.T @ b.T).norm(dim=-1)
    tau = x_norm / projection.unit(curvature, norm_scale)
    gain = radial_gain(projection, x_norm, update_norm, curvature, norm_scale)
    cap = projection.radius_cap if isinstance(projection, Lorentz) else math.inf
    return tau, gain, tau > cap


@contextmanager
def record_geometry(model: nn.Module, adapter_name: str = "default") -> Iterator[GeometryRecord]:
    """Record the geometry of the tokens that pass through a model while the context lasts.

    Costs a product with A and one with B a layer while it lasts, and nothing otherwise. Inputs are
    taken as they reach the layer, before dropout.

    Args:
        model: A model with HypLoRA layers.
        adapter_name: The adapter to look at, active or not.
    """
    layers = _layers_with(model, adapter_name)
    record = GeometryRecord(layers, adapter_name)
    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.enter_context(layer.register_forward_pre_hook(partial(_count, record, name)))
        yield record


def layer_curvatures(model: nn.Module, adapter_name: str = "default") -> dict[str, float]:
    """Return each adapted layer's K, by module name.

    Learned curvatures leave the device in one transfer, however many layers there are.

    Args:
        model: A model with HypLoRA layers.
        adapter_name: The adapter whose curvatures are asked for.

    Returns:
        The paper's K > 0, in units of the layer's norm scale squared; empty if the model has no
        HypLoRA adapter of that name.
    """
    layers = _layers_with(model, adapter_name)
    values = _on_host([layer.curvature(adapter_name) for layer in layers.values()])
    return dict(zip(layers, values, strict=True))


def _layers_with(model: nn.Module, adapter_name: str) -> dict[str, HypLoraLinear]:
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, HypLoraLinear) and adapter_name in module.hyplora_settings
    }


def _count(record: GeometryRecord, name: str, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
    record.add(name, inputs[0])


def _on_host(values: list[float | Float[Tensor, 1]]) -> list[float]:
    """Read numbers, those on a device in one transfer."""
    tensors = [value.detach().double() for value in values if isinstance(value, Tensor)]
    if not tensors:
        return [float(value) for value in values]
    read = iter(torch.cat([tensor.to(tensors[0].device) for tensor in tensors]).tolist())
    return [next(read) if isinstance(value, Tensor) else value for value in values]

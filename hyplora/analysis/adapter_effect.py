"""What a HypLoRA adapter does in each layer: its gains, and how far it moves outputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from hyplora.analysis.prompt_hyperbolicity import Prompt, final_hidden_points, require_evaluation
from hyplora.errors import AnalysisError
from hyplora.tuner.layer import HypLoraLinear
from hyplora.tuner.layer_geometry import LayerGeometry, record_geometry, token_geometry

if TYPE_CHECKING:
    from jaxtyping import Float
    from peft import PeftModel
    from transformers import PreTrainedModel

_QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Spread:
    """How a number is spread over tokens."""

    mean: float
    p05: float
    p25: float
    median: float
    p75: float
    p95: float
    largest: float


@dataclass(frozen=True)
class LayerEffect:
    """What the adapter does in one layer."""

    name: str
    """The module's name in the model."""
    geometry: LayerGeometry
    """K, nu, radii and cap rate, as `hyplora.record_geometry` has them."""
    gain: Spread
    """Factor by which the update differs from LoRA's."""
    displacement: Spread
    """Length of the update over that of the frozen layer's output, ``|s g BAx| / |W0 x|``; tokens
    whose output is zero are left out."""


@dataclass(frozen=True)
class AdapterEffect:
    """What the adapter does in all layers, in the model's order."""

    adapter_name: str
    num_tokens: int
    """Tokens of all prompts."""
    layers: tuple[LayerEffect, ...]


@dataclass
class _TokenNumbers:
    """Numbers of the tokens that passed one layer so far, on the CPU."""

    gains: list[Tensor] = field(default_factory=list)
    displacements: list[Tensor] = field(default_factory=list)


def measure_adapter(
    model: PreTrainedModel | PeftModel, prompts: Sequence[Prompt], adapter_name: str = "default"
) -> AdapterEffect:
    """Send prompts through a model and see what its adapter does to their tokens.

    Layers see the inputs that they have with the adapter at work in the layers before them.

    Args:
        model: A model with a HypLoRA adapter that is active; in evaluation mode.
        prompts: Token ids.
        adapter_name: The adapter to look at.

    Raises:
        AnalysisError: If there is no HypLoRA adapter of that name, no token passes one of its
            layers, or the model is in training mode.
    """
    require_evaluation(model)
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, HypLoraLinear) and adapter_name in module.hyplora_settings
    }
    with record_geometry(model, adapter_name) as record, _token_numbers(layers, adapter_name) as by:
        for prompt in prompts:
            final_hidden_points(model, prompt)
        geometry = record.read()
    if not geometry:
        raise AnalysisError(
            f"no token passed a layer with the HypLoRA adapter {adapter_name!r}, which "
            f"{len(layers)} layers have; give prompts, and a model that has this adapter"
        )
    return AdapterEffect(
        adapter_name=adapter_name,
        num_tokens=sum(len(prompt) for prompt in prompts),
        layers=tuple(
            LayerEffect(
                name, geometry[name], spread(by[name].gains), spread(by[name].displacements)
            )
            for name in layers
            if name in geometry
        ),
    )


def spread(parts: Iterable[Float[Tensor, " tokens"]]) -> Spread:
    """Condense numbers of tokens; quantiles are those of the tokens, not interpolated."""
    values = torch.cat(list(parts)).double().sort().values
    last = len(values) - 1
    low, first, median, third, high = (float(values[round(q * last)]) for q in _QUANTILES)
    return Spread(float(values.mean()), low, first, median, third, high, float(values[-1]))


@contextmanager
def _token_numbers(
    layers: dict[str, HypLoraLinear], adapter_name: str
) -> Iterator[dict[str, _TokenNumbers]]:
    """Collect the numbers of tokens that pass while the context lasts, by layer."""
    numbers = {name: _TokenNumbers() for name in layers}
    with ExitStack() as hooks:
        for name, layer in layers.items():
            hook = partial(_collect, numbers[name], layer, adapter_name)
            # The base layer's own output, before the update is added to it.
            hooks.enter_context(layer.get_base_layer().register_forward_hook(hook))
        yield numbers


def _collect(
    numbers: _TokenNumbers,
    layer: HypLoraLinear,
    adapter_name: str,
    _base_layer: nn.Module,
    inputs: tuple[Any, ...],
    output: Tensor,
) -> None:
    x = inputs[0]
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        _, gain, _ = token_geometry(layer, x, adapter_name)
        dtype = torch.promote_types(output.dtype, torch.float32)
        update = layer.add_update(torch.zeros_like(output, dtype=dtype), x, adapter_name)
        before = output.to(dtype).norm(dim=-1).flatten()
        moved = update.norm(dim=-1).flatten()
        numbers.gains.append(gain.cpu())
        numbers.displacements.append((moved / before)[before > 0].cpu())

"""Reads the curvature of every adapted layer, cheaply enough for a training loop's metrics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hyplora.tuner.layer import HypLoraLinear


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
    fixed: dict[str, float] = {}
    learned: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, HypLoraLinear) and adapter_name in module.hyplora_settings:
            curvature = module.curvature(adapter_name)
            if isinstance(curvature, Tensor):
                learned[name] = curvature.detach()
            else:
                fixed[name] = curvature
    return fixed | _on_host(learned)


def _on_host(curvatures: dict[str, Tensor]) -> dict[str, float]:
    if not curvatures:
        return {}
    device = next(iter(curvatures.values())).device
    values = torch.cat([curvature.to(device) for curvature in curvatures.values()])
    return dict(zip(curvatures, values.tolist(), strict=True))

"""Replaces an adapter in a running model by a saved one, in place where the shapes allow it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel
from peft.utils import load_peft_weights
from torch import Tensor

from hyplora.errors import ConfigError
from hyplora.tuner.config import HypLoraConfig
from hyplora.tuner.layer import HypLoraLinear


def hotswap_adapter(model: PeftModel, folder: str | Path, adapter_name: str = "default") -> None:
    """Put a saved adapter in the place of one that the model has, with its own K, rank and alpha.

    PEFT's own `load_adapter` under a name that is taken loads the weights and keeps the old
    settings, and its `hotswap_adapter` knows LoRA alone. Nothing is changed if the saved adapter
    does not fit.

    Args:
        model: A model with a HypLoRA adapter of that name.
        folder: Where the new adapter was saved.
        adapter_name: The adapter to replace.

    Raises:
        ConfigError: If the saved adapter is not HypLoRA's, adapts other layers, or brings more
            than adapters.
    """
    config = PeftConfig.from_pretrained(str(folder))
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, HypLoraLinear) and adapter_name in module.hyplora_settings
    }
    _require_alike(model.peft_config.get(adapter_name), config, adapter_name, folder)
    weights: dict[str, dict[str, Tensor]] = {}
    for key, tensor in load_peft_weights(str(folder), device="cpu").items():
        module_name, parameter = key.rsplit(".", 1)
        weights.setdefault(module_name, {})[parameter] = tensor
    if different := sorted(weights.keys() ^ layers.keys()):
        raise ConfigError(
            f"the adapter in {folder} and adapter {adapter_name!r} adapt different layers, such as "
            f"{different[0]}: load it under a name of its own"
        )
    owner = next(iter(layers.values())) if config.share_curvature else None
    config.inference_mode = model.peft_config[adapter_name].inference_mode
    for name, layer in layers.items():
        _replace(layer, adapter_name, config.of_layer(name), weights[name], owner)
    model.peft_config[adapter_name] = config


def _replace(
    layer: HypLoraLinear,
    adapter_name: str,
    config: HypLoraConfig,
    weights: Mapping[str, Tensor],
    curvature_owner: HypLoraLinear | None,
) -> None:
    """Write parameters whose shape stays in place, so that compiled graphs go on with them."""
    tables = {name: getattr(layer, name) for name in layer.adapter_layer_names}
    old = {name: table[adapter_name] for name, table in tables.items() if adapter_name in table}
    device, dtype = old["hyplora_A"].device, old["hyplora_A"].dtype
    if {name: p.shape for name, p in old.items()} == {name: w.shape for name, w in weights.items()}:
        layer.set_config(adapter_name, config, curvature_owner)
    else:
        layer.update_layer(adapter_name, config, curvature_owner)
    with torch.no_grad():
        for name, weight in weights.items():
            parameter = tables[name][adapter_name]
            parameter.data = parameter.data.to(device, torch.promote_types(dtype, weight.dtype))
            parameter.copy_(weight)


def _require_alike(
    present: PeftConfig | None, new: PeftConfig, adapter_name: str, folder: str | Path
) -> None:
    for config, what in ((present, f"adapter {adapter_name!r}"), (new, f"the adapter in {folder}")):
        if not isinstance(config, HypLoraConfig):
            raise ConfigError(f"{what} is not a HypLoRA adapter: there is nothing to swap")
        if config.modules_to_save or config.bias != "none":
            raise ConfigError(
                f"{what} brings whole modules or biases, which cannot be swapped in place: load it "
                f"under a name of its own"
            )

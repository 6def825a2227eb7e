"""`HypLoraModel`: places HypLoRA layers in a model, on behalf of PEFT."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import ClassVar, NoReturn

from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING, get_quantization_kwargs
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hyplora.errors import ConfigError, NotMergeableError, UnsupportedLayerError
from hyplora.tuner.approximate_merge import ApproximateMerge, approximate_merge
from hyplora.tuner.config import HypLoraConfig
from hyplora.tuner.layer import NOT_MERGEABLE, HypLoraLinear
from hyplora.tuner.mixed_batch import adapter_names_by_row

_MAMBA_MODEL_TYPES = frozenset({"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"})
"""Architectures whose fused kernels read out_proj.weight and would pass an adapter by."""


class HypLoraModel(BaseTuner):
    """A model whose target layers carry HypLoRA adapters; `peft.get_peft_model` makes it.

    Args:
        model: The model to adapt, in place.
        peft_config: The adapter's `HypLoraConfig`.
        adapter_name: The adapter's name.
        low_cpu_mem_usage: Whether to leave the adapter's weights on the meta device, to be loaded.

    Raises:
        UnsupportedLayerError: If target_modules names a layer that is not linear.
        NoMatchingPeftModuleError: PEFT's, if target_modules matches nothing.
    """

    prefix: str = "hyplora_"
    tuner_layer_cls = HypLoraLinear
    target_module_mapping: ClassVar[dict[str, list[str]]] = (
        TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.copy()
    )

    def inject_adapter(
        self, model: nn.Module, adapter_name: str, *args: object, **kwargs: object
    ) -> None:
        """Place the adapter as PEFT does, and refuse patterns that speak of no adapted layer.

        Raises:
            ConfigError: If an entry of rank_pattern, alpha_pattern or curvature_pattern matches
                none; PEFT would train the adapter without it.
        """
        super().inject_adapter(model, adapter_name, *args, **kwargs)
        adapted = [
            name
            for name, module in model.named_modules()
            if isinstance(module, HypLoraLinear) and adapter_name in module.hyplora_A
        ]
        if unmatched := self.peft_config[adapter_name].unmatched_patterns(adapted):
            raise ConfigError(
                f"{', '.join(unmatched)} matches none of the adapted layers: correct it, or adapt "
                f"that layer; they are {_shown(adapted)}"
            )

    def approximate_merge(
        self, calibration_data: Iterable[Mapping[str, Tensor]], adapter_name: str | None = None
    ) -> ApproximateMerge:
        """Fold an adapter into the base weights as well as fixed matrices can, and measure it.

        The base model and all adapters are used up: only the merged model is left.

        Args:
            calibration_data: Batches of keyword arguments of the model, such as
                ``{"input_ids": ..., "attention_mask": ...}``; some thousand tokens of the kind that
                the model will see.
            adapter_name: The adapter, by default the active one.

        Returns:
            The merged model, and the relative error that it makes in each layer's update on the
            calibration tokens.

        Raises:
            NotMergeableError: If several adapters are active, or a base weight is quantized.
            CalibrationError: If no token reaches one of the adapted layers.
        """
        if adapter_name is None:
            if len(self.active_adapters) != 1:
                raise NotMergeableError(
                    f"adapters {', '.join(self.active_adapters)} are active: name the one to merge"
                )
            (adapter_name,) = self.active_adapters
        layers = {
            name: module
            for name, module in self.model.named_modules()
            if isinstance(module, HypLoraLinear) and adapter_name in module.hyplora_settings
        }
        self.set_adapter(adapter_name)
        error, errors = approximate_merge(self.model, layers, adapter_name, calibration_data)
        return ApproximateMerge(self.unload(), error, errors)

    def add_weighted_adapter(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse to add adapters up into one.

        Raises:
            NotMergeableError: Always.
        """
        raise NotMergeableError(
            "HypLoRA adapters cannot be added up into one: each has its own gain, which differs "
            "from token to token. To let several act at once, pass their names to "
            "base_model.set_adapter"
        )

    def _create_and_replace(
        self,
        peft_config: HypLoraConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        config = peft_config.of_layer(current_key)
        owner = self._curvature_owner(adapter_name) if config.share_curvature else None
        if isinstance(target, HypLoraLinear):
            target.update_layer(adapter_name, config, owner)
            return
        _require_adaptable(target, parent, current_key)
        layer = HypLoraLinear(target, adapter_name, config, owner, **get_quantization_kwargs(self))
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    def _curvature_owner(self, adapter_name: str) -> HypLoraLinear | None:
        """Return the first adapted layer, which keeps the K that all layers share."""
        for module in self.model.modules():
            if isinstance(module, HypLoraLinear) and adapter_name in module.hyplora_A:
                return module
        return None

    def _check_target_module_compatiblity(
        self, peft_config: HypLoraConfig, model: nn.Module, target_name: str
    ) -> None:
        model_type = getattr(getattr(model, "config", None), "model_type", None)
        if model_type in _MAMBA_MODEL_TYPES and target_name == "out_proj":
            raise UnsupportedLayerError(
                f"{target_name!r} of a {model_type} model cannot be adapted, because the model's "
                f"fused kernels read its weight without calling it: remove it from "
                f"target_modules, or name it in exclude_modules"
            )

    def _check_merge_allowed(self) -> NoReturn:
        raise NotMergeableError(NOT_MERGEABLE)

    @contextmanager
    def _enable_peft_forward_hooks(
        self,
        *args: object,
        adapter_names: Sequence[str] | None = None,
        num_beams: int | None = None,
        **kwargs: object,
    ) -> Iterator[None]:
        if adapter_names is None:
            yield
            return
        with adapter_names_by_row(self.model, adapter_names, num_beams=num_beams or 1):
            yield


def _require_adaptable(target: nn.Module, parent: nn.Module, name: str) -> None:
    """Refuse layers that are not linear, and linear ones that their parent does not call."""
    base_layer = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
    if not isinstance(base_layer, (nn.Linear, Conv1D)):
        raise UnsupportedLayerError(
            f"target module {name!r} is a {type(base_layer).__name__}, but HypLoRA adapts only "
            f"torch.nn.Linear and transformers' Conv1D: remove it from target_modules, or name it "
            f"in exclude_modules"
        )
    if isinstance(parent, nn.MultiheadAttention):
        raise UnsupportedLayerError(
            f"target module {name!r} cannot be adapted, because torch.nn.MultiheadAttention reads "
            f"its weight without calling it: remove it from target_modules, or name it in "
            f"exclude_modules"
        )


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

"""The adapted linear layer: ``y = W0 x + B (s g h)`` with ``h = A x`` and the radial gain ``g``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, _get_in_out_features
from peft.utils import quantization_extra_repr, resolve_quantization_backend
from torch import Tensor, nn

from hyplora.errors import AdapterNamesError, NotMergeableError
from hyplora.geometry.curvature import bounded_exp
from hyplora.tuner.config import HypLoraConfig
from hyplora.tuner.folded import FoldedAdapter, KeptAdapter, Origin, fold, folded_update
from hyplora.tuner.shared_input import layer_input
from hyplora.tuner.update import RadialScale, RadialUpdate

if TYPE_CHECKING:
    from jaxtyping import Float

BASE_ROW = "__base__"
"""PEFT's name, in `adapter_names`, for batch rows that no adapter changes."""

NOT_MERGEABLE = (
    "HypLoRA cannot be merged into the base weights: its gain differs from token to token, so no "
    "fixed matrix equals it. Keep the adapter separate, or call "
    "approximate_merge(calibration_data), which adds the nearest fixed matrices and returns their "
    "measured error"
)
"""Why merging is refused, and what to do instead."""


@dataclass(frozen=True)
class AdapterSettings:
    """What one adapter's config says about one layer."""

    scale: RadialScale
    curvature: float | None
    """The fixed K; None where it is learned."""
    norm_scale: float | None
    """The fixed nu; None where it is learned."""
    curvature_bounds: tuple[float, float]
    curvature_gradient_bound: float | None


class HypLoraLinear(nn.Module, BaseTunerLayer):
    """A linear layer with HypLoRA adapters, active or at rest, around the frozen base layer.

    `hyplora.tuner.update` computes what an adapter adds.

    Args:
        base_layer: An `nn.Linear` or transformers' `Conv1D`.
        adapter_name: Name of the first adapter.
        config: The first adapter's configuration, with patterns resolved for this layer.
        curvature_owner: The layer whose learned K this one shares, if any.
        quantization_kwargs: What `peft.utils.get_quantization_kwargs` found on the model.
    """

    adapter_layer_names = (
        "hyplora_A",
        "hyplora_B",
        "hyplora_log_curvature",
        "hyplora_log_norm_scale",
    )
    other_param_names = (
        "hyplora_dropout",
        "hyplora_settings",
        "hyplora_curvature_owner",
        "hyplora_folded",
    )

    if TYPE_CHECKING:  # of BaseTunerLayer, which has no types; nn.Module would answer in its place
        active_adapters: list[str]
        disable_adapters: bool
        merged_adapters: list[str]
        get_base_layer: Callable[[], nn.Module]
        set_adapter: Callable[..., None]
        _move_adapter_to_device_of_base_layer: Callable[[str], None]

    def __init__(
        self,
        base_layer: nn.Module,
        adapter_name: str,
        config: HypLoraConfig,
        curvature_owner: HypLoraLinear | None = None,
        **quantization_kwargs: object,
    ) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.quantization_backend = resolve_quantization_backend(
            self.get_base_layer(), **quantization_kwargs
        )
        self.in_features, self.out_features = _get_in_out_features(self.get_base_layer())
        self.hyplora_A = nn.ParameterDict()
        self.hyplora_B = nn.ParameterDict()
        # Learned K and nu are stored as their logarithms, which keeps them positive; with one
        # element, not as scalars, which FSDP refuses.
        self.hyplora_log_curvature = nn.ParameterDict()
        self.hyplora_log_norm_scale = nn.ParameterDict()
        self.hyplora_dropout = nn.ModuleDict()
        self.hyplora_settings: dict[str, AdapterSettings] = {}
        self.hyplora_curvature_owner: dict[str, HypLoraLinear] = {}
        self.hyplora_folded: dict[str, KeptAdapter] = {}
        self._disable_adapters = False
        self.merged_adapters = []
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config, curvature_owner)

    def update_layer(
        self,
        adapter_name: str,
        config: HypLoraConfig,
        curvature_owner: HypLoraLinear | None = None,
    ) -> None:
        """Add an adapter, or replace the one of this name by a new one."""
        self.set_config(adapter_name, config, curvature_owner)
        self.hyplora_A[adapter_name] = nn.Parameter(torch.empty(config.r, self.in_features))
        self.hyplora_B[adapter_name] = nn.Parameter(torch.empty(self.out_features, config.r))
        self._init_weights(adapter_name, config.init_weights)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        for learned in (self.hyplora_log_curvature, self.hyplora_log_norm_scale):
            if adapter_name in learned:
                del learned[adapter_name]
        if config.learn_curvature and adapter_name not in self.hyplora_curvature_owner:
            self._learn(self.hyplora_log_curvature, adapter_name, config.curvature)
        if config.learn_norm_scale:
            self._learn(self.hyplora_log_norm_scale, adapter_name, self._norm_scale_of(config))
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def set_config(
        self,
        adapter_name: str,
        config: HypLoraConfig,
        curvature_owner: HypLoraLinear | None = None,
    ) -> None:
        """Take over what a config says, its parameters aside."""
        self.hyplora_settings[adapter_name] = self._settings_of(config)
        self.hyplora_dropout[adapter_name] = (
            nn.Dropout(config.dropout) if config.dropout else nn.Identity()
        )
        self.hyplora_curvature_owner.pop(adapter_name, None)
        if curvature_owner is not None and curvature_owner is not self:
            self.hyplora_curvature_owner[adapter_name] = curvature_owner
        self.hyplora_folded.pop(adapter_name, None)

    def curvature(self, adapter_name: str) -> float | Float[Tensor, 1]:
        """Return the K of an adapter in this layer: a number, or a tensor if it is learned."""
        settings = self.hyplora_settings[adapter_name]
        if settings.curvature is not None:
            return settings.curvature
        owner = self.hyplora_curvature_owner.get(adapter_name, self)
        log_curvature = owner.hyplora_log_curvature[adapter_name]
        return bounded_exp(
            log_curvature, settings.curvature_bounds, settings.curvature_gradient_bound
        )

    def norm_scale(self, adapter_name: str) -> float | Float[Tensor, 1]:
        """Return the nu of an adapter in this layer: a number, or a tensor if it is learned."""
        fixed = self.hyplora_settings[adapter_name].norm_scale
        return self.hyplora_log_norm_scale[adapter_name].exp() if fixed is None else fixed

    def forward(
        self,
        x: Float[Tensor, "*batch d_in"],
        *args: object,
        adapter_names: Sequence[str] | None = None,
        **kwargs: object,
    ) -> Float[Tensor, "*batch d_out"]:
        """Apply the base layer and the active adapters.

        Args:
            x: Inputs of the layer.
            args: Further arguments of the base layer.
            adapter_names: The adapter of each batch row, instead of the active ones.
            kwargs: Further arguments of the base layer.
        """
        output = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return output
        if adapter_names is not None:
            return self._forward_by_row(x, output, adapter_names)
        for adapter_name in self.active_adapters:
            if adapter_name in self.hyplora_settings:
                output = self.add_update(output, x, adapter_name)
        return output

    def add_update(
        self,
        output: Float[Tensor, "*batch d_out"],
        x: Float[Tensor, "*batch d_in"],
        adapter_name: str,
    ) -> Float[Tensor, "*batch d_out"]:
        """Add one adapter's update to the layer's output, in the output's dtype."""
        if self.training:
            x = self.hyplora_dropout[adapter_name](x)
        if not (self.training or torch.is_grad_enabled() or torch.compiler.is_compiling()):
            folded = self._folded(adapter_name)
            inputs = layer_input(x)
            way_in = inputs.way_in(folded.projection, folded.curvature, folded.norm_scale)
            return folded_update(output, inputs.rows, way_in, folded, self._owns(output))
        if not torch.compiler.is_compiling():
            self.hyplora_folded.pop(adapter_name, None)  # gradients announce new weights
        scale = self.hyplora_settings[adapter_name].scale
        curvature, norm_scale = self.curvature(adapter_name), self.norm_scale(adapter_name)
        return RadialUpdate.apply(
            output,
            x,
            layer_input(x).radius(scale.projection, curvature, norm_scale),
            self.hyplora_A[adapter_name],
            self.hyplora_B[adapter_name],
            curvature,
            norm_scale,
            scale,
            self._owns(output),
        )

    def _owns(self, output: Tensor) -> bool:
        """Say whether the base layer's output is nobody else's, so that it may be overwritten."""
        base_layer = self.base_layer
        return (
            type(base_layer) is nn.Linear
            and not (base_layer._forward_hooks or torch.compiler.is_compiling())
            and not output._is_view()  # autograd would copy it
        )

    def train(self, mode: bool = True) -> HypLoraLinear:
        """Switch between training and evaluation; weights may change in between."""
        # Not every change of a weight shows in its version: FSDP2 puts that back after a gather.
        self.hyplora_folded.clear()
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> HypLoraLinear:
        self.hyplora_folded.clear()
        return super()._apply(fn, recurse)

    def _folded(self, adapter_name: str) -> FoldedAdapter:
        """Return the adapter made ready to answer, anew when one of its parameters has changed."""
        kept = self.hyplora_folded.get(adapter_name)
        if kept is None or not kept.is_current(adapter_name):
            owner = self.hyplora_curvature_owner.get(adapter_name, self)
            tables = (
                self.hyplora_A,
                self.hyplora_B,
                owner.hyplora_log_curvature,
                self.hyplora_log_norm_scale,
            )
            origins = [Origin.of(table, adapter_name) for table in tables]
            folded = fold(
                self.hyplora_A[adapter_name],
                self.hyplora_B[adapter_name],
                self.curvature(adapter_name),
                self.norm_scale(adapter_name),
                self.hyplora_settings[adapter_name].scale,
            )
            kept = KeptAdapter([origin for origin in origins if origin is not None], folded)
            self.hyplora_folded[adapter_name] = kept
        return kept.adapter

    def _forward_by_row(
        self, x: Tensor, output: Tensor, adapter_names: Sequence[str]
    ) -> Float[Tensor, "*batch d_out"]:
        if len(adapter_names) != len(x):
            raise AdapterNamesError(
                f"adapter_names must name one adapter a batch row, got {len(adapter_names)} names "
                f"for {len(x)} rows"
            )
        result = output.clone()
        for adapter_name in sorted(set(adapter_names) - {BASE_ROW}):
            if adapter_name in self.hyplora_settings:
                rows = [row for row, name in enumerate(adapter_names) if name == adapter_name]
                result[rows] = self.add_update(output[rows], x[rows], adapter_name)
        return result

    def _settings_of(self, config: HypLoraConfig) -> AdapterSettings:
        return AdapterSettings(
            scale=RadialScale(config.build_projection(), config.scaling, config.rescale_output),
            curvature=None if config.learn_curvature else config.curvature,
            norm_scale=None if config.learn_norm_scale else self._norm_scale_of(config),
            curvature_bounds=config.curvature_bounds,
            curvature_gradient_bound=config.curvature_gradient_bound,
        )

    def _norm_scale_of(self, config: HypLoraConfig) -> float:
        return config.norm_scale or math.sqrt(self.in_features)

    def _init_weights(self, adapter_name: str, choice: bool | str) -> None:
        a, b = self.hyplora_A[adapter_name], self.hyplora_B[adapter_name]
        if choice == "gaussian":
            nn.init.normal_(a, std=1 / len(a))
        else:
            nn.init.kaiming_uniform_(a, a=math.sqrt(5))
        if choice is False:
            nn.init.kaiming_uniform_(b, a=math.sqrt(5))
        else:
            nn.init.zeros_(b)

    def _learn(self, parameters: nn.ParameterDict, adapter_name: str, start: float) -> None:
        # In float32 from the start: a bfloat16 base layer would round K by up to 0.4 percent.
        a = self.hyplora_A[adapter_name]
        dtype = torch.promote_types(a.dtype, torch.float32)
        logarithm = torch.full((1,), math.log(start), dtype=dtype, device=a.device)
        parameters[adapter_name] = nn.Parameter(logarithm)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse to fold the adapter into the base weight.

        Raises:
            NotMergeableError: Always.
        """
        raise NotMergeableError(NOT_MERGEABLE)

    def unmerge(self) -> None:
        """Refuse to take the adapter out of the base weight, where it never was.

        Raises:
            NotMergeableError: Always.
        """
        raise NotMergeableError(NOT_MERGEABLE)

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Return False: no LoRA has a gain that depends on the token."""
        return False

    def __repr__(self) -> str:
        return "hyplora." + super().__repr__()

    def extra_repr(self) -> str:
        """Name the quantization of the base layer, if there is one."""
        return quantization_extra_repr(self)

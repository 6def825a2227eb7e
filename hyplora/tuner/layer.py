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
from torch.nn.functional import linear

from hyplora.errors import AdapterNamesError, NotMergeableError
from hyplora.gain import lorentz_gain
from hyplora.tuner.config import HypLoraConfig

if TYPE_CHECKING:
    from jaxtyping import Float

BASE_ROW = "__base__"
"""PEFT's name, in `adapter_names`, for batch rows that no adapter changes."""

NOT_MERGEABLE = (
    "HypLoRA cannot be merged into the base weights: its gain differs from token to token, so no "
    "fixed matrix equals it. Keep the adapter separate; disable_adapter() or unload() gives the "
    "base model back"
)
"""Why merging is refused, and what to do instead."""


@dataclass(frozen=True)
class AdapterSettings:
    """What one adapter's config says about one layer."""

    scaling: float
    norm_scale: float
    radius_cap: float
    curvature: float | None
    """The fixed K; None where the layer learns it."""


class HypLoraLinear(nn.Module, BaseTunerLayer):
    """A linear layer with HypLoRA adapters, active or at rest, around the frozen base layer.

    The Gram matrix of B gives the update's norm, ``|Bh|^2 = h^T (B^T B) h``, so the gain is known
    before B is applied and multiplies r numbers a token instead of d_out.

    Args:
        base_layer: An `nn.Linear` or transformers' `Conv1D`.
        adapter_name: Name of the first adapter.
        config: The first adapter's configuration.
        quantization_kwargs: What `peft.utils.get_quantization_kwargs` found on the model.
    """

    adapter_layer_names = ("hyplora_A", "hyplora_B", "hyplora_log_curvature")
    other_param_names = ("hyplora_dropout", "hyplora_settings")

    if TYPE_CHECKING:  # of BaseTunerLayer, which has no types; nn.Module would answer in its place
        active_adapters: list[str]
        disable_adapters: bool
        merged_adapters: list[str]
        get_base_layer: Callable[[], nn.Module]
        set_adapter: Callable[..., None]
        _cast_input_dtype: Callable[[Tensor, torch.dtype], Tensor]
        _move_adapter_to_device_of_base_layer: Callable[[str], None]

    def __init__(
        self,
        base_layer: nn.Module,
        adapter_name: str,
        config: HypLoraConfig,
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
        # A learned K is stored as its logarithm, which keeps it positive; with one element, not as
        # a scalar, which FSDP refuses.
        self.hyplora_log_curvature = nn.ParameterDict()
        self.hyplora_dropout = nn.ModuleDict()
        self.hyplora_settings: dict[str, AdapterSettings] = {}
        self._disable_adapters = False
        self.merged_adapters = []
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: HypLoraConfig) -> None:
        """Add an adapter, or replace the one of this name by a new one."""
        self.hyplora_settings[adapter_name] = AdapterSettings(
            scaling=config.scaling,
            norm_scale=config.norm_scale or math.sqrt(self.in_features),
            radius_cap=config.radius_cap,
            curvature=None if config.learn_curvature else config.curvature,
        )
        self.hyplora_dropout[adapter_name] = nn.Dropout(config.dropout)
        self.hyplora_A[adapter_name] = nn.Parameter(torch.empty(config.r, self.in_features))
        self.hyplora_B[adapter_name] = nn.Parameter(torch.empty(self.out_features, config.r))
        self._init_weights(adapter_name, start_at_base_model=config.init_weights)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        if adapter_name in self.hyplora_log_curvature:
            del self.hyplora_log_curvature[adapter_name]
        if config.learn_curvature:
            self._init_curvature(adapter_name, config.curvature)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def curvature(self, adapter_name: str) -> float | Float[Tensor, 1]:
        """Return the K of an adapter in this layer: a number, or a tensor if it is learned."""
        fixed = self.hyplora_settings[adapter_name].curvature
        return self.hyplora_log_curvature[adapter_name].exp() if fixed is None else fixed

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
        base = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return base
        if adapter_names is not None:
            return self._forward_by_row(x, base, adapter_names)
        result = base
        for adapter_name in self.active_adapters:
            if adapter_name in self.hyplora_A:
                result = result + self.update(x, adapter_name)
        return result.to(base.dtype)

    def update(
        self, x: Float[Tensor, "*batch d_in"], adapter_name: str
    ) -> Float[Tensor, "*batch d_out"]:
        """Compute what one adapter adds to the base layer's output, in the adapter's dtype."""
        settings = self.hyplora_settings[adapter_name]
        a, b = self.hyplora_A[adapter_name], self.hyplora_B[adapter_name]
        x = self.hyplora_dropout[adapter_name](self._cast_input_dtype(x, a.dtype))
        h = linear(x, a)
        gain = settings.scaling * self._gain(x, h, adapter_name)
        return linear(h * gain.unsqueeze(-1).to(h.dtype), b)

    def _gain(
        self, x: Float[Tensor, "*batch d_in"], h: Float[Tensor, "*batch r"], adapter_name: str
    ) -> Float[Tensor, "*batch"]:
        settings = self.hyplora_settings[adapter_name]
        dtype = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            b, h = self.hyplora_B[adapter_name].to(dtype), h.to(dtype)
            return lorentz_gain(
                x_norm=torch.linalg.vector_norm(x, dim=-1, dtype=dtype),
                update_norm_sq=_update_norm_sq(h, b),
                curvature=self.curvature(adapter_name),
                norm_scale=settings.norm_scale,
                radius_cap=settings.radius_cap,
            )

    def _forward_by_row(self, x: Tensor, base: Tensor, adapter_names: Sequence[str]) -> Tensor:
        if len(adapter_names) != len(x):
            raise AdapterNamesError(
                f"adapter_names must name one adapter a batch row, got {len(adapter_names)} names "
                f"for {len(x)} rows"
            )
        result = base.clone()
        for adapter_name in sorted(set(adapter_names) - {BASE_ROW}):
            if adapter_name in self.hyplora_A:
                rows = [row for row, name in enumerate(adapter_names) if name == adapter_name]
                result[rows] += self.update(x[rows], adapter_name).to(base.dtype)
        return result

    def _init_weights(self, adapter_name: str, *, start_at_base_model: bool) -> None:
        nn.init.kaiming_uniform_(self.hyplora_A[adapter_name], a=math.sqrt(5))
        if start_at_base_model:
            nn.init.zeros_(self.hyplora_B[adapter_name])
        else:
            nn.init.kaiming_uniform_(self.hyplora_B[adapter_name], a=math.sqrt(5))

    def _init_curvature(self, adapter_name: str, curvature: float) -> None:
        # In float32 from the start: a bfloat16 base layer would round K by up to 0.4 percent.
        a = self.hyplora_A[adapter_name]
        dtype = torch.promote_types(a.dtype, torch.float32)
        log_curvature = torch.full((1,), math.log(curvature), dtype=dtype, device=a.device)
        self.hyplora_log_curvature[adapter_name] = nn.Parameter(log_curvature)

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


def _update_norm_sq(h: Float[Tensor, "*batch r"], b: Float[Tensor, "d_out r"]) -> Tensor:
    """Compute ``|Bh|^2``, by B's Gram matrix unless that costs more than the product itself."""
    num_tokens, r = h.shape[:-1].numel(), h.shape[-1]
    if num_tokens < r:
        return linear(h, b).square().sum(dim=-1)
    return ((h @ (b.T @ b)) * h).sum(dim=-1)

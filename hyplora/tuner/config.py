"""`HypLoraConfig`: what a HypLoRA adapter is, as PEFT stores it in adapter_config.json."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from peft import PeftConfig, PeftType

from hyplora.errors import ConfigError
from hyplora.gain import LARGEST_PLAIN_RADIUS

ADAPTER_FORMAT: Final = 1
"""Version of the saved adapter that this release writes; it reads this one and older ones."""

_BIAS_CHOICES = ("none", "all", "hyplora_only")


@dataclass
class HypLoraConfig(PeftConfig):
    """Configuration of a HypLoRA adapter: LoRA's update with the radial gain of the Lorentz model.

    Args:
        r: Rank: inner dimension of the low-rank update.
        alpha: Scale: the update is multiplied by alpha / r (alpha / sqrt(r) with use_rslora).
        dropout: Dropout probability on the adapter's input while training.
        target_modules: Name suffixes of the linear layers to adapt, one regular expression, or
            "all-linear". None takes PEFT's choice for LoRA on a known architecture.
        exclude_modules: Name suffixes, or one regular expression, of layers to leave alone.
        init_weights: True starts at exactly the base model (B = 0); False draws B at random, for
            tests.
        use_rslora: Rank-stabilised scale alpha / sqrt(r).
        curvature: The paper's K > 0, in units of norm_scale squared; the sectional curvature is
            -1/K.
        learn_curvature: Learn K in every adapted layer, starting at `curvature`.
        norm_scale: Norm scale nu in which hidden states are measured; by default sqrt(d_in) of
            each layer.
        radius_cap: Largest radius |x| / (nu sqrt(K)) in the gain; tokens beyond are clipped to it.
        bias: Biases to train beside the adapter: "none", "all", or "hyplora_only" for those of the
            adapted layers.
        modules_to_save: Modules to train in full and to save with the adapter, such as a new head.
        layers_to_transform: Index or indices of the transformer layers to adapt; by default all.
            Needs target_modules given as name suffixes.
        layers_pattern: Name of the module list that layers_to_transform counts, such as "layers".
        hyplora_format: Version of the saved adapter; PEFT drops settings that it does not know, so
            an adapter of a newer format is refused rather than loaded as something else.

    Raises:
        ConfigError: If a setting cannot be used; the message names it.
    """

    r: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: Collection[str] | str | None = "all-linear"
    exclude_modules: Collection[str] | str | None = None
    init_weights: bool = True
    use_rslora: bool = False
    curvature: float = 1.0
    learn_curvature: bool = False
    norm_scale: float | None = None
    radius_cap: float = 4.0
    bias: str = "none"
    modules_to_save: list[str] | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    hyplora_format: int = ADAPTER_FORMAT

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType.HYPLORA
        self.target_modules = _as_set(self.target_modules)
        self.exclude_modules = _as_set(self.exclude_modules)
        self._check_format()
        self._check_numbers()
        self._check_modules()

    @property
    def scaling(self) -> float:
        """Factor of the update: alpha / r, or alpha / sqrt(r) with use_rslora."""
        return self.alpha / (math.sqrt(self.r) if self.use_rslora else self.r)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings with sets in a fixed order, so that saved files are reproducible."""
        settings: dict[str, Any] = super().to_dict()
        return {
            name: sorted(value) if isinstance(value, set) else value
            for name, value in settings.items()
        }

    def _check_format(self) -> None:
        if not _is_integer(self.hyplora_format) or self.hyplora_format < 1:
            raise ConfigError(
                f"hyplora_format must be a positive integer, got {self.hyplora_format!r}: "
                f"leave it out"
            )
        if self.hyplora_format > ADAPTER_FORMAT:
            raise ConfigError(
                f"this adapter has hyplora_format {self.hyplora_format}, but this release of "
                f"hyplora reads formats up to {ADAPTER_FORMAT}: upgrade hyplora to load it"
            )

    def _check_numbers(self) -> None:
        if not _is_integer(self.r) or self.r < 1:
            raise ConfigError(
                f"r must be an integer of at least 1, got {self.r!r}: choose a rank such as 8"
            )
        _require_positive("alpha", self.alpha, "choose a scale such as 2 * r")
        _require_positive(
            "curvature", self.curvature, "it is the paper's K; large values approach LoRA"
        )
        if self.norm_scale is not None:
            _require_positive("norm_scale", self.norm_scale, "leave it out for sqrt(d_in)")
        _require_positive("radius_cap", self.radius_cap, "choose a radius such as 4")
        if self.radius_cap > LARGEST_PLAIN_RADIUS:
            raise ConfigError(
                f"radius_cap must be at most {LARGEST_PLAIN_RADIUS:g}, got {self.radius_cap!r}: "
                f"the gradient grows as sinh(radius_cap) / radius_cap, so choose a radius such as 4"
            )
        if not _is_number(self.dropout) or not 0 <= self.dropout < 1:
            raise ConfigError(
                f"dropout must be a probability below 1, got {self.dropout!r}: choose 0 for none"
            )

    def _check_modules(self) -> None:
        if self.bias not in _BIAS_CHOICES:
            raise ConfigError(f"bias must be one of {', '.join(_BIAS_CHOICES)}, got {self.bias!r}")
        for name in ("target_modules", "exclude_modules"):
            value = getattr(self, name)
            if value is not None and not value:
                raise ConfigError(f"{name} is empty: name at least one module, or leave it out")
        if isinstance(self.target_modules, str) and self.layers_to_transform is not None:
            raise ConfigError(
                f"layers_to_transform {self.layers_to_transform!r} needs target_modules as a list "
                f"of name suffixes, got {self.target_modules!r}: list them, or put the layers into "
                f"the pattern"
            )
        if self.layers_pattern is not None and self.layers_to_transform is None:
            raise ConfigError(
                f"layers_pattern {self.layers_pattern!r} has no effect without "
                f"layers_to_transform: give the layer indices, too"
            )


def _as_set(modules: Collection[str] | str | None) -> set[str] | str | None:
    """Give a list of names the form that PEFT compares with; patterns stay strings."""
    return modules if modules is None or isinstance(modules, str) else set(modules)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _require_positive(name: str, value: float, advice: str) -> None:
    if not _is_number(value) or not 0 < value < math.inf:
        raise ConfigError(f"{name} must be a positive, finite number, got {value!r}: {advice}")

"""`HypLoraConfig`: what a HypLoRA adapter is, as PEFT stores it in adapter_config.json."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

from peft import PeftConfig, PeftType
from peft.utils.other import get_pattern_key

from hyplora.gain import Euclidean, Lorentz, Projection, Stereographic
from hyplora.tuner.config_checks import ADAPTER_FORMAT, PATTERNS, check


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
        rank_pattern: Ranks of single layers: a name suffix, or a regular expression, to its r.
        alpha_pattern: Scales of single layers, in the same form.
        init_weights: True starts at exactly the base model (B = 0, A uniform); "gaussian" does,
            too, with A normal of standard deviation 1 / r; False draws B at random, for tests.
        use_rslora: Rank-stabilised scale alpha / sqrt(r).
        projection: "lorentz", the paper's; "stereographic", the authors' simplified variant; or
            "euclidean", plain LoRA, on which curvature, norm scale and radius cap have no effect.
        curvature: The paper's K > 0, in units of norm_scale squared; the sectional curvature is
            -1/K.
        curvature_pattern: Curvatures of single layers, in the form of rank_pattern.
        learn_curvature: Learn K in every adapted layer, starting at `curvature`.
        share_curvature: Learn one K for all adapted layers instead. FSDP2 has to keep the layer
            that owns it gathered: reshard_after_forward=False.
        curvature_bounds: Smallest and largest K that learning may reach.
        curvature_gradient_bound: Largest absolute gradient of log K that a learned K takes; None
            for any.
        norm_scale: Norm scale nu in which hidden states are measured; by default sqrt(d_in) of
            each layer.
        learn_norm_scale: Learn nu in every adapted layer, starting at `norm_scale`.
        radius_cap: Largest radius |x| / (nu sqrt(K)) in the Lorentz gain; tokens beyond are
            clipped to it.
        rescale_output: True multiplies the update by nu again, so that K to infinity is LoRA;
            False leaves it in units of nu, as the authors' released code does.
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
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    init_weights: bool | str = True
    use_rslora: bool = False
    projection: str = "lorentz"
    curvature: float = 1.0
    curvature_pattern: dict[str, float] = field(default_factory=dict)
    learn_curvature: bool = False
    share_curvature: bool = False
    curvature_bounds: tuple[float, float] = (1e-3, 1e4)
    curvature_gradient_bound: float | None = None
    norm_scale: float | None = None
    learn_norm_scale: bool = False
    radius_cap: float = 4.0
    rescale_output: bool = True
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
        check(self)
        low, high = self.curvature_bounds
        self.curvature_bounds = (low, high)  # JSON has lists only

    @property
    def scaling(self) -> float:
        """Factor of the update: alpha / r, or alpha / sqrt(r) with use_rslora."""
        return self.alpha / (math.sqrt(self.r) if self.use_rslora else self.r)

    def build_projection(self) -> Projection:
        """Return the gain that the settings describe."""
        projections: dict[str, Projection] = {
            "lorentz": Lorentz(self.radius_cap),
            "stereographic": Stereographic(),
            "euclidean": Euclidean(),
        }
        return projections[self.projection]

    def of_layer(self, module_name: str) -> HypLoraConfig:
        """Return the settings of one layer, with the patterns resolved as PEFT resolves LoRA's."""
        if not (self.rank_pattern or self.alpha_pattern or self.curvature_pattern):
            return self
        return replace(
            self,
            r=_resolve(self.rank_pattern, module_name, self.r),
            alpha=_resolve(self.alpha_pattern, module_name, self.alpha),
            curvature=_resolve(self.curvature_pattern, module_name, self.curvature),
            rank_pattern={},
            alpha_pattern={},
            curvature_pattern={},
        )

    def unmatched_patterns(self, module_names: Collection[str]) -> list[str]:
        """Return the pattern entries that speak of none of the layers, such as misspelt ones."""
        return [
            f"{name}[{key!r}]"
            for name in PATTERNS
            for key in getattr(self, name)
            if not any(get_pattern_key([key], layer) == key for layer in module_names)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the settings with sets in a fixed order, so that saved files are reproducible."""
        settings: dict[str, Any] = super().to_dict()
        return {
            name: sorted(value) if isinstance(value, set) else value
            for name, value in settings.items()
        }


def _resolve(pattern: dict[str, Any], module_name: str, default: Any) -> Any:  # noqa: ANN401
    return pattern.get(get_pattern_key(pattern, module_name), default)


def _as_set(modules: Collection[str] | str | None) -> set[str] | str | None:
    """Give a list of names the form that PEFT compares with; patterns stay strings."""
    return modules if modules is None or isinstance(modules, str) else set(modules)

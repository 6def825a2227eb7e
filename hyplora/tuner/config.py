"""`HypLoraConfig`: what a HypLoRA adapter is, as PEFT stores it in adapter_config.json."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeGuard

from peft import PeftConfig, PeftType
from peft.utils.other import get_pattern_key

from hyplora.errors import ConfigError
from hyplora.gain import (
    LARGEST_RADIUS_CAP,
    Euclidean,
    Lorentz,
    Projection,
    Stereographic,
)

ADAPTER_FORMAT: Final = 2
"""Version of the saved adapter that this release writes; it reads this one and older ones."""

_BIAS_CHOICES = ("none", "all", "hyplora_only")
_INIT_CHOICES = (True, False, "gaussian")
_PATTERNS = ("rank_pattern", "alpha_pattern", "curvature_pattern")
_ABOUT_CURVATURE = "it is the paper's K; large values approach LoRA"
_PROJECTION_CHOICES = ("lorentz", "stereographic", "euclidean")


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
        self._check_format()
        self._check_numbers()
        self._check_choices()
        self._check_geometry()
        self._check_patterns()
        self._check_modules()
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
            for name in _PATTERNS
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
        _require_rank("r", self.r)
        _require_positive("alpha", self.alpha, "choose a scale such as 2 * r")
        if not _is_number(self.dropout) or not 0 <= self.dropout < 1:
            raise ConfigError(
                f"dropout must be a probability below 1, got {self.dropout!r}: choose 0 for none"
            )

    def _check_choices(self) -> None:
        if not any(self.init_weights is choice for choice in _INIT_CHOICES[:2]) and (
            self.init_weights not in _INIT_CHOICES[2:]
        ):
            raise ConfigError(
                f"init_weights must be True, False or 'gaussian', got {self.init_weights!r}: "
                f"PEFT's other choices subtract the first update from the base weight, which no "
                f"fixed matrix can do for a gain that differs from token to token"
            )
        if self.projection not in _PROJECTION_CHOICES:
            raise ConfigError(
                f"projection must be one of {', '.join(_PROJECTION_CHOICES)}, "
                f"got {self.projection!r}"
            )

    def _check_geometry(self) -> None:
        _require_positive("curvature", self.curvature, _ABOUT_CURVATURE)
        if self.norm_scale is not None:
            _require_positive("norm_scale", self.norm_scale, "leave it out for sqrt(d_in)")
        _require_positive("radius_cap", self.radius_cap, "choose a radius such as 4")
        if self.radius_cap > LARGEST_RADIUS_CAP:
            raise ConfigError(
                f"radius_cap must be at most {LARGEST_RADIUS_CAP:g}, got {self.radius_cap!r}: "
                f"the gradient grows as sinh(radius_cap) / radius_cap, so choose a radius such as 4"
            )
        if self.curvature_gradient_bound is not None:
            _require_positive(
                "curvature_gradient_bound", self.curvature_gradient_bound, "leave it out for none"
            )
        self._check_bounds()
        if self.share_curvature and not self.learn_curvature:
            raise ConfigError(
                "share_curvature True has no effect without learn_curvature: set that, too, or "
                "leave it out; a fixed curvature is the same in all layers"
            )
        if self.share_curvature and self.curvature_pattern:
            raise ConfigError(
                f"curvature_pattern {self.curvature_pattern!r} contradicts share_curvature True: "
                f"a shared curvature starts at `curvature`"
            )
        if self.projection == "euclidean" and (self.learn_curvature or self.learn_norm_scale):
            raise ConfigError(
                "learn_curvature and learn_norm_scale have nothing to learn in projection "
                "'euclidean', which is flat: leave them out"
            )

    def _check_bounds(self) -> None:
        bounds = self.curvature_bounds
        if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
            raise ConfigError(
                f"curvature_bounds must be a smallest and a largest K, got {bounds!r}: "
                f"give two numbers such as (1e-3, 1e4)"
            )
        for bound in bounds:
            _require_positive("curvature_bounds", bound, _ABOUT_CURVATURE)
        if bounds[0] >= bounds[1]:
            raise ConfigError(
                f"curvature_bounds must rise, got {bounds!r}: give the smallest K first"
            )
        starts = [self.curvature, *self.curvature_pattern.values()]
        if self.learn_curvature and not all(bounds[0] <= k <= bounds[1] for k in starts):
            raise ConfigError(
                f"curvature {starts!r} must start inside curvature_bounds {bounds!r} to be learned"
            )

    def _check_patterns(self) -> None:
        for name in _PATTERNS:
            if not isinstance(getattr(self, name), dict):
                raise ConfigError(
                    f"{name} must map layer names to numbers, got {getattr(self, name)!r}"
                )
        for key, r in self.rank_pattern.items():
            _require_rank(f"rank_pattern[{key!r}]", r)
        for key, alpha in self.alpha_pattern.items():
            _require_positive(f"alpha_pattern[{key!r}]", alpha, "choose a scale such as 2 * r")
        for key, curvature in self.curvature_pattern.items():
            _require_positive(f"curvature_pattern[{key!r}]", curvature, _ABOUT_CURVATURE)

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


def _resolve(pattern: dict[str, Any], module_name: str, default: Any) -> Any:  # noqa: ANN401
    return pattern.get(get_pattern_key(pattern, module_name), default)


def _as_set(modules: Collection[str] | str | None) -> set[str] | str | None:
    """Give a list of names the form that PEFT compares with; patterns stay strings."""
    return modules if modules is None or isinstance(modules, str) else set(modules)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _require_rank(name: str, r: object) -> None:
    if not _is_integer(r) or r < 1:
        raise ConfigError(
            f"{name} must be an integer of at least 1, got {r!r}: choose a rank such as 8"
        )


def _require_positive(name: str, value: float, advice: str) -> None:
    if not _is_number(value) or not 0 < value < math.inf:
        raise ConfigError(f"{name} must be a positive, finite number, got {value!r}: {advice}")

"""Refuses settings of a `HypLoraConfig` that cannot be used, each by name, value and advice."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, TypeGuard

from hyplora.errors import ConfigError
from hyplora.gain import LARGEST_RADIUS_CAP

if TYPE_CHECKING:
    from hyplora.tuner.config import HypLoraConfig

ADAPTER_FORMAT: Final = 2
"""Version of the saved adapter that this release writes; it reads this one and older ones."""

PATTERNS: Final = ("rank_pattern", "alpha_pattern", "curvature_pattern")
"""Settings that map names of single layers to their own values."""

_BIAS_CHOICES = ("none", "all", "hyplora_only")
_INIT_CHOICES = (True, False, "gaussian")
_ABOUT_CURVATURE = "it is the paper's K; large values approach LoRA"
_PROJECTION_CHOICES = ("lorentz", "stereographic", "euclidean")


def check(config: HypLoraConfig) -> None:
    """Check every setting.

    Raises:
        ConfigError: If a setting cannot be used; the message names it.
    """
    _check_format(config)
    _check_numbers(config)
    _check_choices(config)
    _check_geometry(config)
    _check_patterns(config)
    _check_modules(config)


def _check_format(config: HypLoraConfig) -> None:
    if not _is_integer(config.hyplora_format) or config.hyplora_format < 1:
        raise ConfigError(
            f"hyplora_format must be a positive integer, got {config.hyplora_format!r}: "
            f"leave it out"
        )
    if config.hyplora_format > ADAPTER_FORMAT:
        raise ConfigError(
            f"this adapter has hyplora_format {config.hyplora_format}, but this release of "
            f"hyplora reads formats up to {ADAPTER_FORMAT}: upgrade hyplora to load it"
        )


def _check_numbers(config: HypLoraConfig) -> None:
    _require_rank("r", config.r)
    _require_positive("alpha", config.alpha, "choose a scale such as 2 * r")
    if not _is_number(config.dropout) or not 0 <= config.dropout < 1:
        raise ConfigError(
            f"dropout must be a probability below 1, got {config.dropout!r}: choose 0 for none"
        )


def _check_choices(config: HypLoraConfig) -> None:
    if not any(config.init_weights is choice for choice in _INIT_CHOICES[:2]) and (
        config.init_weights not in _INIT_CHOICES[2:]
    ):
        raise ConfigError(
            f"init_weights must be True, False or 'gaussian', got {config.init_weights!r}: "
            f"PEFT's other choices subtract the first update from the base weight, which no "
            f"fixed matrix can do for a gain that differs from token to token"
        )
    if config.projection not in _PROJECTION_CHOICES:
        raise ConfigError(
            f"projection must be one of {', '.join(_PROJECTION_CHOICES)}, got {config.projection!r}"
        )


def _check_geometry(config: HypLoraConfig) -> None:
    _require_positive("curvature", config.curvature, _ABOUT_CURVATURE)
    if config.norm_scale is not None:
        _require_positive("norm_scale", config.norm_scale, "leave it out for sqrt(d_in)")
    _require_positive("radius_cap", config.radius_cap, "choose a radius such as 4")
    if config.radius_cap > LARGEST_RADIUS_CAP:
        raise ConfigError(
            f"radius_cap must be at most {LARGEST_RADIUS_CAP:g}, got {config.radius_cap!r}: "
            f"the gradient grows as sinh(radius_cap) / radius_cap, so choose a radius such as 4"
        )
    if config.curvature_gradient_bound is not None:
        _require_positive(
            "curvature_gradient_bound", config.curvature_gradient_bound, "leave it out for none"
        )
    _check_bounds(config)
    if config.share_curvature and not config.learn_curvature:
        raise ConfigError(
            "share_curvature True has no effect without learn_curvature: set that, too, or "
            "leave it out; a fixed curvature is the same in all layers"
        )
    if config.share_curvature and config.curvature_pattern:
        raise ConfigError(
            f"curvature_pattern {config.curvature_pattern!r} contradicts share_curvature True: "
            f"a shared curvature starts at `curvature`"
        )
    if config.projection == "euclidean" and (config.learn_curvature or config.learn_norm_scale):
        raise ConfigError(
            "learn_curvature and learn_norm_scale have nothing to learn in projection "
            "'euclidean', which is flat: leave them out"
        )


def _check_bounds(config: HypLoraConfig) -> None:
    bounds = config.curvature_bounds
    if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
        raise ConfigError(
            f"curvature_bounds must be a smallest and a largest K, got {bounds!r}: "
            f"give two numbers such as (1e-3, 1e4)"
        )
    for bound in bounds:
        _require_positive("curvature_bounds", bound, _ABOUT_CURVATURE)
    if bounds[0] >= bounds[1]:
        raise ConfigError(f"curvature_bounds must rise, got {bounds!r}: give the smallest K first")
    starts = [config.curvature, *config.curvature_pattern.values()]
    if config.learn_curvature and not all(bounds[0] <= k <= bounds[1] for k in starts):
        raise ConfigError(
            f"curvature {starts!r} must start inside curvature_bounds {bounds!r} to be learned"
        )


def _check_patterns(config: HypLoraConfig) -> None:
    for name in PATTERNS:
        if not isinstance(getattr(config, name), dict):
            raise ConfigError(
                f"{name} must map layer names to numbers, got {getattr(config, name)!r}"
            )
    for key, r in config.rank_pattern.items():
        _require_rank(f"rank_pattern[{key!r}]", r)
    for key, alpha in config.alpha_pattern.items():
        _require_positive(f"alpha_pattern[{key!r}]", alpha, "choose a scale such as 2 * r")
    for key, curvature in config.curvature_pattern.items():
        _require_positive(f"curvature_pattern[{key!r}]", curvature, _ABOUT_CURVATURE)


def _check_modules(config: HypLoraConfig) -> None:
    if config.bias not in _BIAS_CHOICES:
        raise ConfigError(f"bias must be one of {', '.join(_BIAS_CHOICES)}, got {config.bias!r}")
    for name in ("target_modules", "exclude_modules"):
        value = getattr(config, name)
        if value is not None and not value:
            raise ConfigError(f"{name} is empty: name at least one module, or leave it out")
    if isinstance(config.target_modules, str) and config.layers_to_transform is not None:
        raise ConfigError(
            f"layers_to_transform {config.layers_to_transform!r} needs target_modules as a list "
            f"of name suffixes, got {config.target_modules!r}: list them, or put the layers into "
            f"the pattern"
        )
    if config.layers_pattern is not None and config.layers_to_transform is None:
        raise ConfigError(
            f"layers_pattern {config.layers_pattern!r} has no effect without "
            f"layers_to_transform: give the layer indices, too"
        )


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

"""One adapted linear layer, its inputs, and what the maps say that it adds."""

import math

import torch
from torch import Tensor, nn

from hyplora import HypLoraConfig
from hyplora.geometry.lorentz import low_rank_update
from hyplora.tuner.layer import HypLoraLinear

D_IN, D_OUT = 24, 18


def layer_with(
    config: HypLoraConfig, base: nn.Module | None = None, dtype: torch.dtype = torch.float64
) -> HypLoraLinear:
    torch.manual_seed(0)
    base = base if base is not None else nn.Linear(D_IN, D_OUT)
    return HypLoraLinear(base.to(dtype).requires_grad_(False), "default", config)


def config_with(**settings: float | bool | None) -> HypLoraConfig:
    return HypLoraConfig(**{"r": 4, "alpha": 8.0, "init_weights": False, **settings})


def inputs(norm: float = math.sqrt(D_IN), dtype: torch.dtype = torch.float64) -> Tensor:
    x = torch.randn(2, 5, D_IN, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return (x / x.norm(dim=-1, keepdim=True) * norm).to(dtype)


def update_of(layer: HypLoraLinear, x: Tensor) -> Tensor:
    nothing = torch.zeros(*x.shape[:-1], D_OUT, dtype=x.dtype)
    return layer.add_update(nothing, x, "default")


def step_by_step(layer: HypLoraLinear, x: Tensor, config: HypLoraConfig) -> Tensor:
    return config.scaling * low_rank_update(
        x.double(),
        layer.hyplora_A["default"].double(),
        layer.hyplora_B["default"].double(),
        torch.tensor(config.curvature, dtype=torch.float64),
        config.norm_scale or math.sqrt(D_IN),
        config.radius_cap,
    )

"""Vectors, points and settings that the tests of the Lorentz model share."""

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from hyplora.geometry.lorentz import expmap0, time_component

CURVATURES = pytest.mark.parametrize("curvature", [1e-3, 1.0, 10.0, 1e4])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
PROPERTY = settings(deadline=None, max_examples=50)

curvatures = st.floats(1e-3, 1e4)
seeds = st.integers(0, 2**16)


def scalar(value: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(value, dtype=dtype)


def vector_at(radius: float, curvature: float, seed: int, dim: int = 6) -> Tensor:
    """Draw a vector of length radius * sqrt(K)."""
    direction = torch.randn(dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return direction / direction.norm() * radius * curvature**0.5


def point_at(
    radius: float, curvature: float, seed: int, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Draw a point at the distance radius * sqrt(K) from the origin."""
    return expmap0(vector_at(radius, curvature, seed), scalar(curvature)).to(dtype)


def ambient(x: Tensor, curvature: Tensor) -> Tensor:
    return torch.cat([time_component(x, curvature), x], dim=-1)

"""An adapter made ready to answer: folded factors, and how long they may be kept.

The same map as `hyplora.tuner.update` in fewer operations a token, without gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from hyplora.gain import Projection
from hyplora.tuner.shared_input import WayIn
from hyplora.tuner.update import RadialScale, cast, without_autocast

if TYPE_CHECKING:
    from jaxtyping import Float


class FoldedAdapter(NamedTuple):
    """An adapter made ready to answer: fewer operations a token, the same map.

    With ``B = Q R``, Q orthonormal, ``BAx = Q (RAx)`` and ``|BAx| = |RAx|``: the update's norm
    costs no product of its own.
    """

    a: Float[Tensor, "r d_in"]
    """``R A`` in units of the projection."""
    b: Float[Tensor, "r d_out"]
    """``Q`` times the unit and alpha / r, transposed."""
    curvature: float
    norm_scale: float
    projection: Projection


def fold(
    a: Float[Tensor, "r d_in"],
    b: Float[Tensor, "d_out r"],
    curvature: float | Float[Tensor, 1],
    norm_scale: float | Float[Tensor, 1],
    scale: RadialScale,
) -> FoldedAdapter:
    """Make an adapter ready to answer; waits for the device if K or nu is a tensor."""
    full = torch.promote_types(a.dtype, torch.float32)
    k, nu = float(curvature), float(norm_scale)
    unit = scale.projection.unit(k, nu)
    with torch.no_grad(), without_autocast(a):
        q, r = torch.linalg.qr(b.to(full))
        folded_a = r @ a.to(full) / unit
        folded_b = (scale.factor(nu) * unit * q).T.contiguous()
    return FoldedAdapter(folded_a, folded_b, k, nu, scale.projection)


def folded_update(
    base: Float[Tensor, "*batch d_out"],
    rows: Float[Tensor, "tokens d_in"],
    way_in: WayIn,
    adapter: FoldedAdapter,
    in_place: bool,
) -> Float[Tensor, "*batch d_out"]:
    """Compute the layer's output with a folded adapter; not differentiable.

    Args:
        base: Output of the base layer.
        rows: Inputs of the layer.
        way_in: The projection's way in at their norms.
        adapter: The adapter.
        in_place: Whether nobody else reads ``base``, so that the update may be added to it.
    """
    with without_autocast(rows):
        full = adapter.a.dtype
        dtype = rows.dtype if rows.dtype == base.dtype == torch.bfloat16 else full
        h = linear(cast(rows, dtype), cast(adapter.a, dtype))
        mu = torch.linalg.vector_norm(h, dim=-1, keepdim=True, dtype=full)
        c, smallest_mu = way_in
        gain = 1.0
        if isinstance(c, float) or isinstance(smallest_mu, float):
            number = max(mu.item(), float(smallest_mu))
            gain = adapter.projection.gain(float(c), number, adapter.curvature)
        else:
            mu = torch.maximum(mu, smallest_mu)
            h = cast(h * adapter.projection.gain(c, mu, adapter.curvature), dtype)
        b = cast(adapter.b, dtype)
        if in_place and base.dtype == dtype:
            base.view(-1, base.shape[-1]).addmm_(h, b, alpha=gain)
            return base
        # Cast before the sum: a sum of two dtypes takes three times as long.
        update = cast(h @ b, base.dtype).view(base.shape)
        return base.add_(update, alpha=gain) if in_place else base.add(update, alpha=gain)


class KeptAdapter(NamedTuple):
    """A folded adapter and the parameters that it was made of, as they were then."""

    origins: Sequence[Origin]
    adapter: FoldedAdapter

    def is_current(self, adapter_name: str) -> bool:
        """Say whether the parameters are the same objects with the same values."""
        for table, tensor, version in self.origins:
            if table.get(adapter_name) is not tensor or version < 0 or tensor._version != version:
                return False
        return True


class Origin(NamedTuple):
    """A parameter that a folded adapter was made of."""

    table: dict[str, nn.Parameter | None]
    """Where its layer keeps it."""
    tensor: Tensor
    version: int
    """-1 for an inference tensor, which counts none."""

    @classmethod
    def of(cls, parameters: nn.ParameterDict, adapter_name: str) -> Origin | None:
        """Look a parameter up; None if the layer has none of that name."""
        table = parameters._parameters  # ParameterDict's own lookup is ten times slower
        tensor = table.get(adapter_name)
        if tensor is None:
            return None
        return cls(table, tensor, -1 if tensor.is_inference() else tensor._version)

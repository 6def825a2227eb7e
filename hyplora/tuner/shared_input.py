"""What layers that are fed the same tensor share: its norms, and what projections make of them."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from hyplora.gain import Projection, smallest_length

if TYPE_CHECKING:
    from jaxtyping import Float


class WayIn(NamedTuple):
    """A projection's way in, as answering needs it; numbers for a single token on a CPU."""

    c: float | Float[Tensor, "tokens 1"]
    """The factor of the way in."""
    smallest_mu: float | Float[Tensor, "tokens 1"]
    """What stands in for an update of length zero."""


class XRadius(NamedTuple):
    """What a projection makes of the norms of tokens."""

    tau: Float[Tensor, "tokens 1"]
    """``|x|`` in the projection's unit."""
    c: Float[Tensor, "tokens 1"]
    """The factor of the way in."""
    c_slope: Float[Tensor, "tokens 1"]
    """``2 dc / d(tau^2)``."""
    smallest_mu: Float[Tensor, "tokens 1"]
    """What stands in for an update of length zero."""


class LayerInput:
    """A layer's input and the norms of its tokens, in float32, or float64 for float64 inputs.

    Without gradients, which the update carries itself.
    """

    def __init__(self, x: Float[Tensor, "*batch d_in"]) -> None:
        dtype = torch.promote_types(x.dtype, torch.float32)
        rows = x.detach().reshape(-1, x.shape[-1])
        # A CPU's half-precision products with so few columns are slower than this cast, once for
        # all layers, and float32's; setting one up takes 12 us, and a token comes by often.
        self.rows: Float[Tensor, "tokens d_in"] = rows.to(dtype) if rows.is_cpu else rows
        """The tokens, in the precision in which answers are computed."""
        self._norm = torch.linalg.vector_norm(self.rows, dim=-1, keepdim=True, dtype=dtype)
        # Python computes with one number several times faster than torch with a tensor of it.
        self._number = self._norm.item() if rows.is_cpu and len(rows) == 1 else None
        self._smallest = smallest_length(dtype)
        self._ways_in: dict[tuple[Projection, float, float], WayIn] = {}
        self._radii: dict[tuple[Projection, float, float], XRadius] = {}

    def way_in(self, projection: Projection, curvature: float, norm_scale: float) -> WayIn:
        """Compute what answering needs."""
        key = (projection, curvature, norm_scale)
        if key not in self._ways_in:
            unit = projection.unit(curvature, norm_scale)
            if self._number is None:
                c = projection.way_in(self._tau(unit), curvature)
                self._ways_in[key] = WayIn(c, self._smallest / c)
            else:
                tau = max(self._number / unit, self._smallest)
                number = projection.way_in(tau, curvature)
                self._ways_in[key] = WayIn(number, self._smallest / number)
        return self._ways_in[key]

    def radius(
        self, projection: Projection, curvature: float | Tensor, norm_scale: float | Tensor
    ) -> XRadius:
        """Compute what the backward pass needs, too."""
        if isinstance(curvature, Tensor) or isinstance(norm_scale, Tensor):
            return self._radius(projection, curvature, norm_scale)
        key = (projection, curvature, norm_scale)
        if key not in self._radii:
            self._radii[key] = self._radius(projection, curvature, norm_scale)
        return self._radii[key]

    def _radius(
        self, projection: Projection, curvature: float | Tensor, norm_scale: float | Tensor
    ) -> XRadius:
        with torch.no_grad():
            tau = self._tau(projection.unit(curvature, norm_scale))
            c = projection.way_in(tau, curvature)
            slope = projection.way_in_slope(tau, c, curvature)
            return XRadius(tau, c, slope, self._smallest / c)

    def _tau(self, unit: float | Tensor) -> Float[Tensor, "tokens 1"]:
        return (self._norm / unit).clamp_(min=self._smallest)


_last: tuple[weakref.ref[Tensor], int, LayerInput] | None = None


def layer_input(x: Float[Tensor, "*batch d_in"]) -> LayerInput:
    """Measure a layer's input, once for the q, k and v, or gate and up, of a block."""
    global _last
    if not _can_be_shared(x):
        return LayerInput(x)
    # The name is read once and written once: a thread between them costs a norm, no more.
    last = _last
    if last is not None and last[0]() is x and last[1] == x._version:
        return last[2]
    measured = LayerInput(x)
    _last = (weakref.ref(x), x._version, measured)
    return measured


def _can_be_shared(x: Tensor) -> bool:
    """Leave out what cannot be told from its own earlier values, or would outlive its memory."""
    if torch.compiler.is_compiling() or x.is_inference():
        return False
    if x.is_leaf and x.requires_grad:  # gradcheck changes these behind their version
        return False
    return not (x.is_cuda and torch.cuda.is_current_stream_capturing())

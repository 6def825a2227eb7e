"""Gromov products of a finite metric space, and the exact delta that follows from them.

    (i|j) = (D_ip + D_jp - D_ij) / 2,        delta = max_ij [ max_k min((i|k), (k|j)) - (i|j) ]

Only the largest difference is asked for, so most triples need no look. Let ``C_ij`` be the widest
path from i to j: the largest smallest product along any chain of points. A chain over one k is
such a path, so a pair's difference is at most ``C_ij - (i|j)``; in a tree that is zero for every
pair. Prim's algorithm finds these paths in n^2 steps: in the order in which it takes in points,
``C`` of two of them is the smallest weight taken between the two. Pairs whose bound does not beat
the best difference so far are skipped, and so is every k whose own product is too small.

The maximum is over the same differences of the same numbers as without bounds, so the result has
the same bits. docs/adr/0009-delta-by-bounds.md has what each idea gains.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor

from hyplora.errors import AnalysisError

if TYPE_CHECKING:
    from jaxtyping import Float, Int

_BLOCK_BYTES: Final = 4 * 2**20
"""Size of a temporary matrix; about what a core has of fast memory."""

_FEW_POINTS: Final = 400
"""Up to here a search of all triples takes milliseconds, and bounds may take more."""


def pairwise_distances(
    points: Float[Tensor, "n dim"], dtype: torch.dtype = torch.float32
) -> Float[Tensor, "n n"]:
    """Compute Euclidean distances, symmetric to the bit and zero on the diagonal.

    Computed in float64, as a difference of squares: in float32 this would lose the distances of
    points that are close together and far from the origin, as hidden states are.

    Args:
        points: Coordinates (length), in any precision.
        dtype: Precision of the result.

    Returns:
        Distances (length) on the device of the points; n^2 numbers and little besides.

    Raises:
        AnalysisError: If a coordinate is not finite.
    """
    exact = points.detach().to(torch.float64)
    if not bool(exact.isfinite().all()):
        raise AnalysisError(
            "points have coordinates that are not finite; leave out the prompt, or run the model "
            "in a wider dtype"
        )
    exact = exact - exact.mean(0)
    squares = exact.square().sum(1)
    n = len(exact)
    distances = torch.empty(n, n, dtype=dtype, device=exact.device)
    for start, stop in _blocks(n, 8):
        block = (
            squares[start:stop, None] + squares[:stop] - 2 * (exact[start:stop] @ exact[:stop].T)
        )
        block = block.clamp(min=0).sqrt().to(dtype)
        corner = block[:, start:].tril(-1)  # the products above the diagonal may round otherwise
        block[:, start:] = corner + corner.T
        distances[start:stop, :stop] = block
        distances[:stop, start:stop] = block.T
    return distances


def gromov_products(distances: Float[Tensor, "n n"], base: int) -> Float[Tensor, "n n"]:
    """Compute the Gromov products ``(i|j)`` at a base point (length).

    Args:
        distances: Of a metric space (length).
        base: Index of the base point.

    Source:
        Gromov 1987, Hyperbolic groups, section 1.1.
    """
    from_base = distances[base]
    # The sum first: the other way round its two halves would round differently.
    return (from_base[:, None] + from_base).sub_(distances).mul_(0.5)


def delta_of_products(products: Float[Tensor, "n n"]) -> float:
    """Compute ``delta``, the least number for which the four-point condition holds at a base.

    Needs less than ten matrices' rows beyond the products and never an n x n x n array. Time is
    about n^2 where the bounds are close and at worst n^3, with none of it in vain loops.

    Args:
        products: Symmetric Gromov products at a base point (length).

    Returns:
        ``delta >= 0`` (length), the same number that a search of all triples finds.
    """
    n = len(products)
    if n < 3:
        return 0.0
    # A product of two points is at most that of either with itself, but for rounding.
    best = max(0.0, float((products.amax(1) - products.diagonal()).amax()))
    if n <= _FEW_POINTS:
        return max(best, _search_all(products))
    order, widths = (
        torch.from_numpy(each).to(products.device) for each in _prim(products.cpu().numpy())
    )
    bounds, likeliest = _largest_bounds(products, order, widths)
    best = max(best, _largest_of_pairs(products, order[:-1], likeliest[:-1]))
    for place in bounds.argsort(descending=True).tolist():
        if float(bounds[place]) <= best:
            break
        best = _best_of_point(products, order, widths, place, best)
    return best


def _search_all(products: Float[Tensor, "n n"]) -> float:
    """Search all triples, each pair once."""
    largest = products.new_zeros(())
    for start, stop in _blocks(len(products), products.element_size() * len(products)):
        rows = products[start:stop]
        widest = torch.minimum(rows[:, None], products[None, start:]).amax(2)
        largest = torch.maximum(largest, (widest - rows[:, start:]).amax())
    return float(largest)


def _prim(products: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take in the points along a maximum spanning tree, one by one.

    On the host, since each step waits for the one before.

    Returns:
        The points in the order in which they are taken in; the largest product of each with those
        before it.
    """
    n = len(products)
    order, widths = np.zeros(n, dtype=np.int64), np.full(n, np.inf, dtype=products.dtype)
    closed = np.zeros(n, dtype=products.dtype)
    closed[0] = -np.inf
    nearest = products[0].copy()
    for step in range(1, n):
        point = int(np.argmax(nearest + closed))
        order[step], widths[step] = point, nearest[point]
        np.maximum(nearest, products[point], out=nearest)
        closed[point] = -np.inf
    return order, widths


def _largest_bounds(
    products: Float[Tensor, "n n"], order: Int[Tensor, " n"], widths: Float[Tensor, " n"]
) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
    """Compute the largest bound of each point's pairs with later ones, in Prim's order.

    Returns:
        The bounds, on the host; the point with which each has it.
    """
    n = len(products)
    bounds, likeliest = products.new_zeros(n), order.clone()
    places = torch.arange(n, device=products.device)
    for start, stop in _blocks(n, products.element_size()):
        is_later = places[start:] > places[start:stop, None]
        paths = widths[start:].expand(stop - start, -1).masked_fill(~is_later, math.inf)
        gaps = paths.cummin(1).values - products[order[start:stop]][:, order[start:]]
        largest = gaps.masked_fill_(~is_later, 0).max(1)
        bounds[start:stop], likeliest[start:stop] = largest.values, order[start:][largest.indices]
    return bounds.cpu(), likeliest


def _largest_of_pairs(
    products: Float[Tensor, "n n"], some: Int[Tensor, " pairs"], others: Int[Tensor, " pairs"]
) -> float:
    """Compute the largest difference of given pairs."""
    largest = products.new_zeros(())
    for start, stop in _blocks(len(some), products.element_size()):
        i, j = some[start:stop], others[start:stop]
        widest = torch.minimum(products[i], products[j]).amax(1)
        largest = torch.maximum(largest, (widest - products[i, j]).amax())
    return float(largest)


def _best_of_point(
    products: Float[Tensor, "n n"],
    order: Int[Tensor, " n"],
    widths: Float[Tensor, " n"],
    place: int,
    best: float,
) -> float:
    """Raise the best difference by that of the point at a place in the order with later ones."""
    row = products[order[place]]
    others = order[place + 1 :]
    own = row[others]
    is_open = widths[place + 1 :].cummin(0).values - own > best
    others, own = others[is_open], own[is_open]
    if not len(others):
        return best
    between = (row > best + own.amin()).nonzero()[:, 0]
    if not len(between):
        return best
    return max(best, _largest_difference(products, row[between], between, others, own))


def _largest_difference(
    products: Float[Tensor, "n n"],
    way_in: Float[Tensor, " k"],
    between: Int[Tensor, " k"],
    others: Int[Tensor, " j"],
    own: Float[Tensor, " j"],
) -> float:
    """Compute ``max_jk min((i|k), (k|j)) - (i|j)`` of one i over some j and k.

    Rows are fetched whole, so the shorter list gives the rows.
    """
    rows_at_once = max(1, _BLOCK_BYTES // (products.element_size() * len(products)))
    largest = products.new_zeros(())
    if len(others) < len(between):
        for js, values in zip(others.split(rows_at_once), own.split(rows_at_once), strict=True):
            ways = products.index_select(0, js).index_select(1, between)
            found = torch.minimum(ways, way_in, out=ways).amax(1) - values
            largest = torch.maximum(largest, found.amax())
    else:
        for ks, values in zip(between.split(rows_at_once), way_in.split(rows_at_once), strict=True):
            ways = products.index_select(0, ks).index_select(1, others)
            found = torch.minimum(ways, values[:, None], out=ways).amax(0) - own
            largest = torch.maximum(largest, found.amax())
    return float(largest)


def _blocks(n: int, element_size: int) -> list[tuple[int, int]]:
    """Bounds of blocks of rows, each a temporary matrix of about `_BLOCK_BYTES`."""
    rows = max(1, _BLOCK_BYTES // (element_size * max(n, 1)))
    return [(start, min(start + rows, n)) for start in range(0, n, rows)]

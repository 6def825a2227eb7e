"""Keys and values of rows that come and go while others go on being answered.

The ends of all rows stand in one column, so that any model which takes batches padded on the left
takes these: neither its attention nor its mask has to know that rows change. Columns are written
in place; transformers' own cache copies all of itself at every token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

HEADROOM = 64
"""Columns that are made at a time; a cache is copied once for so many tokens."""


class RowCacheLayer(CacheLayerMixin):
    """One layer's keys and values; called by transformers' models."""

    is_sliding = False
    """A window is left to the mask, for which each column is the token at that distance."""

    width = 0
    """Columns that are in use."""

    @classmethod
    def of(cls, parts: Sequence[tuple[Tensor, Tensor]]) -> RowCacheLayer:
        """A layer with the rows of all parts, each of which has its keys and values."""
        layer = cls()
        keys, values = zip(*parts, strict=True)
        layer.lazy_initialization(keys[0], values[0])
        layer.keys, layer.values = _stacked(keys), _stacked(values)
        layer.width = max(part.shape[2] for part in keys)
        return layer

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Begin without a column."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        self.is_initialized = True

    def update(
        self,
        key_states: Float[Tensor, "row kv_head time dim"],
        value_states: Float[Tensor, "row kv_head time dim_v"],
        *_: object,
        **__: object,
    ) -> tuple[Tensor, Tensor]:
        """Add columns to every row, and return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        first, self.width = self.width, self.width + key_states.shape[2]
        if self.width > self.keys.shape[2]:
            self.keys = _extended(self.keys[:, :, :first], self.width + HEADROOM)
            self.values = _extended(self.values[:, :, :first], self.width + HEADROOM)
        self.keys[:, :, first : self.width] = key_states
        self.values[:, :, first : self.width] = value_states
        return self.keys[:, :, : self.width], self.values[:, :, : self.width]

    def newest(self, num_columns: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the last columns."""
        columns = slice(self.width - num_columns, self.width)
        return self.keys[:, :, columns], self.values[:, :, columns]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns after the next update, and the first of them that is seen."""
        return self.width + query_length, 0

    def get_seq_length(self) -> int:
        """Columns in use."""
        return self.width

    def get_max_length(self) -> int:
        """There is no bound."""
        return -1


class RowCache(Cache):
    """The keys and values of a batch."""

    def __init__(self, layers: Sequence[RowCacheLayer] = ()) -> None:
        if layers:
            super().__init__(layers=list(layers))
        else:
            super().__init__(layer_class_to_replicate=RowCacheLayer)

    def joined(self, rows: Sequence[int], num_columns: int, others: RowCache | None) -> RowCache:
        """Some of the rows, and behind them those of another cache.

        Args:
            rows: Which to keep.
            num_columns: How many of the newest columns these need.
            others: A cache of the same model; None for no further rows.
        """
        layers = []
        for index, layer in enumerate(self.layers):
            parts = [tuple(states[list(rows)] for states in layer.newest(num_columns))]
            if others is not None:
                added = others.layers[index]
                parts.append(added.newest(added.width))
            layers.append(RowCacheLayer.of(parts))
        return RowCache(layers)

    def beginnings(self, lengths: Sequence[int]) -> RowCache:
        """Rows that hold the first so many columns of this cache's only row, their ends aligned."""
        layers = []
        for layer in self.layers:
            # A column before a row's first one is masked; any of this row fills it.
            columns = torch.arange(layer.width)[None] - layer.width + torch.tensor(lengths)[:, None]
            columns = columns.clamp(min=0).to(layer.device)
            states = layer.newest(layer.width)
            keys, values = (each[0][:, columns].transpose(0, 1) for each in states)
            layers.append(RowCacheLayer.of([(keys, values)]))
        return RowCache(layers)


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """Rows of all parts, their ends aligned, with room for further columns."""
    width = max(part.shape[2] for part in parts)
    num_rows = sum(len(part) for part in parts)
    _, heads, _, dim = parts[0].shape
    # Zeros, since what is masked is multiplied by zero, which NaN would survive.
    stacked = parts[0].new_zeros(num_rows, heads, width + HEADROOM, dim)
    first = 0
    for part in parts:
        stacked[first : first + len(part), :, width - part.shape[2] : width] = part
        first += len(part)
    return stacked


def _extended(states: Tensor, num_columns: int) -> Tensor:
    rows, heads, width, dim = states.shape
    extended = states.new_empty(rows, heads, num_columns, dim)
    extended[:, :, :width] = states
    return extended

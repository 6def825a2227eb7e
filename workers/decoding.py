"""Greedy decoding of many prompts: whenever answers end, the next prompts take their places.

A batch that waits for its longest answer computes rows that have long ended. Here these leave the
cache, and prompts that wait are read in their stead. What all prompts begin with, such as the
template's system message or examples, is read once. Each answer has the tokens of a prompt that is
answered alone, as far as the precision of the sums decides nothing: docs/adr/0008-evaluation.md.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from peft import PeftModel
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from workers.adapter_rows import AdapterRows, adapter_rows
from workers.row_cache import RowCache

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

StopReason = Literal["end", "length"]
"""Whether the model ended its answer, or was cut off."""

MIN_SHARED_TOKENS = 8
"""Shorter beginnings are not worth a forward pass of their own."""

REFILL_SHARE = 4
"""Rows are exchanged when one in so many has ended: each exchange copies the cache once."""


@dataclass(frozen=True)
class Prompt:
    """What is to be answered."""

    input_ids: Sequence[int]
    """At least one token."""

    max_new_tokens: int
    """At least one; prompt and answer must fit in the model's context together."""

    adapter_name: str | None = None
    """The adapter that answers; "__base__" for none; None, of all prompts alike, for what is
    active in the model."""

    @property
    def max_length(self) -> int:
        """Most tokens of prompt and answer together."""
        return len(self.input_ids) + self.max_new_tokens


@dataclass(frozen=True)
class Answer:
    """What was answered."""

    index: int
    """Of the prompt."""

    tokens: tuple[int, ...]
    """With the token that ended it, where one did."""

    stop_reason: StopReason


@dataclass(frozen=True)
class BatchLimits:
    """How many prompts are answered at the same time."""

    max_rows: int = 64
    """Most prompts."""

    max_cached_tokens: int = 32_768
    """Most tokens whose keys and values are kept, counted as if each row grew to the longest; a
    longer row goes alone."""

    max_pass_tokens: int = 4_096
    """Most tokens of prompts in one forward pass, padding included; a longer one goes alone."""


def can_decode_together(model: PreTrainedModel | PeftModel) -> bool:
    """Whether a model keeps keys and values by token, and nothing else, from token to token.

    Others, such as state-space models, would take padding for text.
    """
    base = _base_of(model)
    if base._is_stateful or not base._supports_default_dynamic_cache():
        return False
    layers = DynamicCache(config=base.config).layers
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


@torch.inference_mode()
def decode(
    model: PreTrainedModel | PeftModel,
    prompts: Sequence[Prompt],
    stop_ids: Iterable[int],
    limits: BatchLimits,
) -> Iterator[Answer]:
    """Answer prompts greedily, each as soon as its answer ends.

    Adapters follow each other, the longest prompts of each first; where one's prompts run out, the
    next one's join in the same passes.

    Args:
        model: In evaluation mode; `can_decode_together` holds.
        prompts: In any order.
        stop_ids: Tokens that end an answer.
        limits: What fits in memory.

    Raises:
        AdapterUnusableError: If the model has no adapter of a prompt's name.
    """
    with adapter_rows(model) as rows:
        rows.check([prompt.adapter_name for prompt in prompts])
        yield from _Decoder(rows, prompts, frozenset(stop_ids), limits).answers()


@torch.inference_mode()
def decode_one_by_one(
    model: PreTrainedModel | PeftModel,
    prompts: Sequence[Prompt],
    stop_ids: Iterable[int],
    limits: BatchLimits | None = None,
) -> Iterator[Answer]:
    """As `decode`, by transformers' own generation of one prompt at a time: for other models.

    Args:
        model: In evaluation mode.
        prompts: In any order.
        stop_ids: Tokens that end an answer.
        limits: Unused.

    Raises:
        AdapterUnusableError: If the model has no adapter of a prompt's name.
    """
    stops = frozenset(stop_ids)
    with adapter_rows(model) as rows:
        rows.check([prompt.adapter_name for prompt in prompts])
        for row in _in_order(prompts):
            rows.activate(row.prompt.adapter_name)
            input_ids = torch.tensor(row.prompt.input_ids, device=model.device)[None]
            output = model.generate(
                input_ids=input_ids,
                attention_mask=torch.ones_like(input_ids),
                do_sample=False,
                max_new_tokens=row.prompt.max_new_tokens,
                eos_token_id=sorted(stops),
                pad_token_id=min(stops),
            )
            for token in output[0, input_ids.shape[1] :].tolist():
                row.add(token, stops)
            assert row.stop_reason is not None
            yield Answer(row.index, tuple(row.tokens), row.stop_reason)


@dataclass(eq=False)
class _Row:
    """A prompt that is being answered."""

    index: int
    prompt: Prompt
    tokens: list[int] = field(default_factory=list)
    stop_reason: StopReason | None = None

    @property
    def num_cached(self) -> int:
        """Tokens whose keys and values the next pass reads: all but the newest."""
        return len(self.prompt.input_ids) + len(self.tokens) - 1

    def add(self, token: int, stop_ids: frozenset[int]) -> bool:
        """Add a token; say whether it is the last."""
        self.tokens.append(token)
        if token in stop_ids:
            self.stop_reason = "end"
        elif len(self.tokens) == self.prompt.max_new_tokens:
            self.stop_reason = "length"
        return self.stop_reason is not None


class _Decoder:
    """The rows that are being answered, those that have ended, and those that wait."""

    def __init__(
        self,
        model: AdapterRows,
        prompts: Sequence[Prompt],
        stop_ids: frozenset[int],
        limits: BatchLimits,
    ) -> None:
        self._model, self._stop_ids, self._limits = model, stop_ids, limits
        self._device = model.model.device
        forward = _base_of(model.model).forward
        selects_logits = "logits_to_keep" in inspect.signature(forward).parameters
        self._last_logits = {"logits_to_keep": 1} if selects_logits else {}
        self._waiting = deque(_in_order(prompts))
        self._ended: list[_Row] = []
        self._rows: list[_Row] = []
        self._cache = RowCache()
        self._shared = _shared_beginning([prompt.input_ids for prompt in prompts])
        self._beginnings: dict[str | None, RowCache] = {}

    def answers(self) -> Iterator[Answer]:
        """Go on until every prompt is answered."""
        while self._waiting or self._rows:
            num_ended = sum(row.stop_reason is not None for row in self._rows)
            if num_ended * REFILL_SHARE >= len(self._rows):
                self._exchange()
            else:
                self._step()
            for row in self._ended:
                assert row.stop_reason is not None
                yield Answer(row.index, tuple(row.tokens), row.stop_reason)
            self._ended.clear()

    def _step(self) -> None:
        """Add a token to every row."""
        width = self._cache.get_seq_length()
        cached = self._tensor([row.num_cached for row in self._rows])
        newest = self._tensor([row.tokens[-1] for row in self._rows])
        self._add_tokens(
            self._rows,
            cache=self._cache,
            input_ids=newest[:, None],
            # Not by what is cached: rows that have ended go on being computed, and do not grow.
            attention_mask=(self._columns(width + 1) >= self._first_columns).long(),
            position_ids=cached[:, None],
        )

    def _exchange(self) -> None:
        """Drop the rows that have ended, and read prompts that wait in their stead."""
        going = [row for row in self._rows if row.stop_reason is None]
        groups = list(self._passes(self._next_prompts(going)))
        if not groups:
            self._regroup(None, [])
        for group in groups:
            self._regroup(self._read(group), group)

    def _next_prompts(self, going: Sequence[_Row]) -> list[_Row]:
        """The waiting prompts that fit beside the rows that go on; at least one if none does."""
        rows = list(going)
        while self._waiting:
            row = self._waiting[0]
            longest = max(each.prompt.max_length for each in (*rows, row))
            is_full = (
                len(rows) == self._limits.max_rows
                or longest * (len(rows) + 1) > self._limits.max_cached_tokens
            )
            is_other = bool(rows) and rows[0].prompt.adapter_name != row.prompt.adapter_name
            if rows and (is_full or (is_other and not self._model.can_mix)):
                break
            rows.append(self._waiting.popleft())
        return rows[len(going) :]

    def _passes(self, rows: Iterable[_Row]) -> Iterator[list[_Row]]:
        """Prompts that are read in one forward pass: those of one adapter."""
        group: list[_Row] = []
        for row in rows:
            longest = max(len(each.prompt.input_ids) for each in (*group, row))
            num_read = (longest - len(self._shared)) * (len(group) + 1)
            is_other = bool(group) and group[0].prompt.adapter_name != row.prompt.adapter_name
            if group and (is_other or num_read > self._limits.max_pass_tokens):
                yield group
                group = []
            group.append(row)
        if group:
            yield group

    def _read(self, group: Sequence[_Row]) -> RowCache:
        """Read prompts, padded on the left, which gives the first token of each answer."""
        lengths = [len(row.prompt.input_ids) for row in group]
        width, num_shared = max(lengths), len(self._shared)
        input_ids = torch.zeros(len(group), width, dtype=torch.long)
        for place, row in enumerate(group):
            input_ids[place, width - lengths[place] :] = torch.tensor(row.prompt.input_ids)
        first = width - self._tensor(lengths)[:, None]
        columns = self._columns(width)
        # A shorter row has its padding before what is shared, and reads the end of that again:
        # then the distance of two columns is that of their tokens, which windows count.
        cache = RowCache()
        if num_shared:
            shared = self._read_shared(group[0].prompt.adapter_name)
            cache = shared.beginnings([num_shared - (width - length) for length in lengths])
        self._add_tokens(
            group,
            cache=cache,
            input_ids=input_ids.to(self._device)[:, num_shared:],
            attention_mask=(columns >= first).long(),
            position_ids=(columns - first).clamp(min=0)[:, num_shared:],
        )
        return cache

    def _read_shared(self, adapter_name: str | None) -> RowCache:
        """Keys and values of what all prompts begin with, which differ between adapters."""
        if adapter_name not in self._beginnings:
            cache = RowCache()
            self._model(
                [adapter_name],
                input_ids=self._tensor(self._shared)[None],
                past_key_values=cache,
                use_cache=True,
                **self._last_logits,
            )
            self._beginnings = {adapter_name: cache}  # adapters follow each other
        return self._beginnings[adapter_name]

    def _regroup(self, fresh: RowCache | None, group: Sequence[_Row]) -> None:
        """Go on with the rows that have not ended, and with those of a cache that was just read."""
        places = [place for place, row in enumerate(self._rows) if row.stop_reason is None]
        kept = [self._rows[place] for place in places]
        if kept:
            num_columns = max(row.num_cached for row in kept)
            self._cache = self._cache.joined(places, num_columns, fresh)
        else:
            self._cache = fresh or RowCache()
        self._rows = [*kept, *group]
        if self._rows:
            cached = self._tensor([row.num_cached for row in self._rows])
            self._first_columns = self._cache.get_seq_length() - cached[:, None]

    def _add_tokens(self, rows: Sequence[_Row], cache: RowCache, **inputs: Tensor) -> None:
        names = [row.prompt.adapter_name for row in rows]
        output = self._model(
            names, **inputs, past_key_values=cache, use_cache=True, **self._last_logits
        )
        tokens = output.logits[:, -1].argmax(dim=-1).tolist()
        for row, token in zip(rows, tokens, strict=True):
            if row.stop_reason is None and row.add(token, self._stop_ids):
                self._ended.append(row)

    def _columns(self, width: int) -> Tensor:
        return torch.arange(width, device=self._device)[None]

    def _tensor(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, device=self._device)


def _in_order(prompts: Sequence[Prompt]) -> list[_Row]:
    """One adapter's prompts after the other's, the longest of each first."""
    rows = [_Row(index, prompt) for index, prompt in enumerate(prompts)]
    return sorted(rows, key=lambda row: (row.prompt.adapter_name or "", -len(row.prompt.input_ids)))


def _shared_beginning(prompts: Sequence[Sequence[int]]) -> list[int]:
    """What all begin with, but for the last token of the shortest, which is to be read."""
    if len(prompts) < 2:
        return []
    first, last = min(map(list, prompts)), max(map(list, prompts))
    longest = min(map(len, prompts)) - 1
    num_shared = next((at for at in range(longest) if first[at] != last[at]), longest)
    return first[:num_shared] if num_shared >= MIN_SHARED_TOKENS else []


def _base_of(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    return model.get_base_model() if isinstance(model, PeftModel) else model

"""Log-likelihoods of options, many questions in one forward pass.

A pass holds whole questions one behind the other without padding, as in training
(`workers.packing`). What the options of a question have in common is computed once, and each option
follows it as a branch that sees no other.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from peft import PeftModel

from workers.adapter_rows import AdapterRows, adapter_rows
from workers.base_model import context_length
from workers.errors import DataInvalidError, RowTooLongError
from workers.packing import branch_positions, use_packed_attention

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from workers.tasks.task import Choices, Option

MAX_PASS_TOKENS = 2_048
"""Most tokens in one forward pass where the caller names no number."""


@dataclass(frozen=True)
class ScoredOption:
    """An option as tokens."""

    input_ids: tuple[int, ...]
    """Of context and continuation."""

    num_context: int
    """Tokens of the context, at least one; the others are scored."""


@dataclass(frozen=True)
class OptionQuestion:
    """The options of a question, as tokens."""

    options: tuple[ScoredOption, ...]

    adapter_name: str | None = None
    """The adapter that scores; "__base__" for none; None, of all questions alike, for what is
    active in the model."""

    @property
    def trunk(self) -> tuple[int, ...]:
        """What all options begin with, up to a continuation's last token, which is a branch."""
        first = min(option.input_ids for option in self.options)
        last = max(option.input_ids for option in self.options)
        longest = min(len(option.input_ids) for option in self.options) - 1
        num_shared = next((at for at in range(longest) if first[at] != last[at]), longest)
        return first[:num_shared]

    @property
    def num_tokens(self) -> int:
        """Tokens that are computed."""
        trunk = len(self.trunk)
        return trunk + sum(len(option.input_ids) - trunk for option in self.options)


def encode_choices(
    tokenizer: PreTrainedTokenizerBase, choices: Choices, adapter_name: str | None = None
) -> OptionQuestion:
    """Split each option's tokens where the context ends, as lm-evaluation-harness does.

    Context and continuation are tokenized as one text, and the continuation is what goes beyond as
    many tokens as the context alone has. White space at the context's end belongs to the
    continuation, since many tokenizers join it with the word that follows.

    Args:
        tokenizer: The base model's; it adds the special tokens that it adds by default.
        choices: The options.
        adapter_name: Kept in the question.

    Raises:
        DataInvalidError: If an option has no token of its own to score.
    """
    options = tuple(_encode_option(tokenizer, option) for option in choices.options)
    return OptionQuestion(options, adapter_name)


def _encode_option(tokenizer: PreTrainedTokenizerBase, option: Option) -> ScoredOption:
    context = option.context.rstrip()
    whole = tokenizer(option.context + option.continuation, verbose=False)["input_ids"]
    num_context = len(tokenizer(context, verbose=False)["input_ids"])
    if num_context == 0:  # something has to predict the first token
        first = tokenizer.bos_token_id
        whole = [tokenizer.eos_token_id if first is None else first, *whole]
        num_context = 1
    if len(whole) <= num_context:
        raise DataInvalidError(
            f"the option {option.text!r} has no token of its own after {context[-80:]!r}; "
            "give it a text"
        )
    return ScoredOption(tuple(whole), num_context)


def check_lengths(model: PreTrainedModel | PeftModel, questions: Iterable[OptionQuestion]) -> None:
    """Raise RowTooLongError if an option is longer than the model's context."""
    context = context_length(model.config)
    for number, question in enumerate(questions, start=1):
        longest = max(len(option.input_ids) for option in question.options)
        if context is not None and longest > context:
            raise RowTooLongError(
                f"question {number} has an option of {longest} tokens with its context, and the "
                f"base model's context has {context}; shorten it or give fewer examples"
            )


@torch.no_grad()  # what inference mode makes, no later training in this process could use
def log_likelihoods(
    model: PreTrainedModel | PeftModel,
    questions: Sequence[OptionQuestion],
    max_pass_tokens: int = MAX_PASS_TOKENS,
) -> Iterator[tuple[int, tuple[float, ...]]]:
    """Score every option of every question: log-probabilities in nats, summed in float32.

    Args:
        model: In evaluation mode.
        questions: In any order.
        max_pass_tokens: Most tokens in one forward pass; a longer question goes alone.

    Yields:
        The index of a question, and a number for each option in their order.

    Raises:
        RowTooLongError: If an option is longer than the model's context.
        AdapterUnusableError: If the model has no adapter of a question's name.
    """
    check_lengths(model, questions)
    with adapter_rows(model) as rows, _packed_attention(model) as can_pack:
        rows.check([question.adapter_name for question in questions])
        scorer = _Scorer(rows)
        if not can_pack:
            for index, question in enumerate(questions):
                yield index, tuple(scorer.score_alone(question, each) for each in question.options)
            return
        for group in _passes(questions, max_pass_tokens):
            yield from zip(group, scorer.score([questions[at] for at in group]), strict=True)


class _Scorer:
    def __init__(self, model: AdapterRows) -> None:
        self._model, self._device = model, model.model.device
        forward = _base_of(model.model).forward
        self._selects_logits = "logits_to_keep" in inspect.signature(forward).parameters

    def score(self, questions: Sequence[OptionQuestion]) -> list[tuple[float, ...]]:
        """Score the options of all questions in one forward pass; all have one adapter."""
        input_ids: list[int] = []
        positions, lengths, branches = [], [], []
        predictors: list[int] = []
        targets: list[int] = []
        for question in questions:
            first, trunk = len(input_ids), len(question.trunk)
            input_ids += question.trunk
            for option in question.options:
                # Where a branch would begin if it held the trunk, too.
                shift = len(input_ids) - trunk
                input_ids += option.input_ids[trunk:]
                for at in range(option.num_context, len(option.input_ids)):
                    predictors.append(at - 1 + (first if at - 1 < trunk else shift))
                    targets.append(option.input_ids[at])
            own = [len(option.input_ids) - trunk for option in question.options]
            positions.append(branch_positions(trunk, own))
            lengths.append(len(input_ids) - first)
            branches.append(own)
        scores = self._log_probabilities(
            questions[0].adapter_name,
            input_ids,
            predictors,
            targets,
            position_ids=torch.cat(positions)[None].to(self._device),
            row_lengths=lengths,
            row_branches=branches,
        )
        num_scored = [
            len(option.input_ids) - option.num_context
            for question in questions
            for option in question.options
        ]
        sums = iter([float(part.sum()) for part in scores.split(num_scored)])
        return [tuple(next(sums) for _ in question.options) for question in questions]

    def score_alone(self, question: OptionQuestion, option: ScoredOption) -> float:
        """Score one option in a forward pass of its own."""
        scored = range(option.num_context, len(option.input_ids))
        return float(
            self._log_probabilities(
                question.adapter_name,
                option.input_ids,
                [at - 1 for at in scored],
                [option.input_ids[at] for at in scored],
            ).sum()
        )

    def _log_probabilities(
        self,
        adapter_name: str | None,
        input_ids: Sequence[int],
        predictors: Sequence[int],
        targets: Sequence[int],
        **inputs: object,
    ) -> Float[Tensor, " target"]:
        """Of each target after the token at its predictor; logits are made there alone."""
        places, place_of = torch.tensor(predictors, device=self._device).unique(return_inverse=True)
        inputs["input_ids"] = torch.tensor(input_ids, device=self._device)[None]
        if self._selects_logits:
            inputs["logits_to_keep"] = places[None]
        logits = self._model([adapter_name], **inputs, use_cache=False).logits[0]
        if not self._selects_logits:
            logits = logits[places]
        logits = logits.float()
        chosen = logits[place_of, torch.tensor(targets, device=self._device)]
        return chosen - logits.logsumexp(dim=-1)[place_of]


def _passes(questions: Sequence[OptionQuestion], max_tokens: int) -> Iterator[list[int]]:
    """Indices of questions that go together: of one adapter and of like length, longest first."""
    sizes = [question.num_tokens for question in questions]
    order = sorted(
        range(len(questions)), key=lambda at: (questions[at].adapter_name or "", -sizes[at])
    )
    group: list[int] = []
    for index in order:
        is_other = bool(group) and (
            questions[group[0]].adapter_name != questions[index].adapter_name
        )
        if group and (is_other or sum(sizes[at] for at in group) + sizes[index] > max_tokens):
            yield group
            group = []
        group.append(index)
    if group:
        yield group


@contextmanager
def _packed_attention(model: PreTrainedModel | PeftModel) -> Iterator[bool]:
    """Whether rows may be packed, for as long as the context lasts."""
    base = _base_of(model)
    own = base.config._attn_implementation
    try:
        yield use_packed_attention(base)
    finally:
        base.set_attn_implementation(own)


def _base_of(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    return model.get_base_model() if isinstance(model, PeftModel) else model

"""From rows to tokens: conversations laid out by a chat template, and which tokens are learned.

The tokenizer's chat template lays a conversation out (see `workers.chat_templates` for models
without one). The text holds every special token, so none is added when it is encoded, and training
and generation read exactly the same tokens. By default only answers are learned, each with the
token that ends its turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import jinja2
import torch

from workers.errors import BaseModelUnusableError
from workers.rows import InstructionRow, Turn

if TYPE_CHECKING:  # a registered model ships this module to where jaxtyping may be missing
    from jaxtyping import Bool, Int
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from workers.rows import Row

Message = Mapping[str, str]
"""One turn: `role` ("system", "user", "assistant") and `content`."""

LossOn = Literal["answers", "last_answer", "all"]
"""Which tokens of a conversation are learned."""


def user_turn(text: str) -> list[Message]:
    """A conversation of one user turn."""
    return [{"role": "user", "content": text}]


def render_prompt(
    tokenizer: PreTrainedTokenizerBase,
    row: InstructionRow,
    shots: Sequence[InstructionRow] = (),
) -> str:
    """The text after which the model answers a row.

    Args:
        tokenizer: The base model's.
        row: The row to answer; its output is not shown.
        shots: Rows that are shown before it as turns with their answers.

    Raises:
        BaseModelUnusableError: If the chat template fails.
    """
    return render_question(tokenizer, [turn for each in (*shots, row) for turn in each.turns])


def render_question(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn]) -> str:
    """The text after which the model gives the last turn of a conversation.

    Raises:
        BaseModelUnusableError: If the chat template fails.
    """
    return render(tokenizer, _messages(turns[:-1]))


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    """The text after which the model gives its next turn in a conversation.

    Raises:
        BaseModelUnusableError: If the chat template fails.
    """
    return _apply_template(tokenizer, messages, add_generation_prompt=True)


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of rendered texts or of answers."""
    if not texts:
        return []
    return tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]


def end_of_turn_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends the model's turn: the template's if it has one, else end-of-sequence.

    The two differ in many chat models (Gemma's `<end_of_turn>`, Llama 3's `<|eot_id|>`).
    """
    answer = "ANSWER"
    conversation = [*user_turn("QUESTION"), {"role": "assistant", "content": answer}]
    rendered = _apply_template(tokenizer, conversation, add_generation_prompt=False)
    (ending,) = encode(tokenizer, [rendered.rpartition(answer)[2].lstrip()])
    is_special = bool(ending) and ending[0] in tokenizer.added_tokens_decoder
    return ending[0] if is_special else tokenizer.eos_token_id


@dataclass(frozen=True, eq=False)
class Example:
    """A tokenized conversation."""

    input_ids: Int[Tensor, " time"]

    is_answer: Bool[Tensor, " time"]
    """The tokens that are learned; never the first, which nothing predicts."""

    line: int = 0
    """Line of the row in its source, from 1."""

    @property
    def num_tokens(self) -> int:
        """Length."""
        return len(self.input_ids)

    @property
    def num_answer_tokens(self) -> int:
        """Tokens that count in the loss."""
        return int(self.is_answer.sum())

    def cut(self, max_length: int) -> Example:
        """The first tokens alone."""
        return Example(self.input_ids[:max_length], self.is_answer[:max_length], self.line)


def stacked(examples: Sequence[Example]) -> dict[str, Tensor]:
    """Many examples as four arrays, which are written and sent at once; see `unstacked`."""
    empty = torch.empty(0, dtype=torch.int32)
    return {
        "input_ids": torch.cat([empty, *(example.input_ids for example in examples)]),
        "is_answer": torch.cat([empty.bool(), *(example.is_answer for example in examples)]),
        "lengths": torch.tensor([example.num_tokens for example in examples]),
        "lines": torch.tensor([example.line for example in examples]),
    }


def unstacked(arrays: Mapping[str, Tensor]) -> list[Example]:
    """The examples that `stacked` put together, as views.

    Raises:
        KeyError: If an array is missing.
    """
    lengths = arrays["lengths"].tolist()
    return [
        Example(input_ids, is_answer, line)
        for input_ids, is_answer, line in zip(
            arrays["input_ids"].split(lengths),
            arrays["is_answer"].split(lengths),
            arrays["lines"].tolist(),
            strict=True,
        )
    ]


@dataclass(frozen=True)
class _Piece:
    """Text that is encoded on its own, so that tokens never span its borders."""

    text: str
    is_learned: bool
    closes_turn: bool = False
    """Whether the text begins with what ends an answer that is learned."""


def tokenize(
    rows: Iterable[tuple[int, Row]], tokenizer: PreTrainedTokenizerBase, loss_on: LossOn = "answers"
) -> list[Example]:
    """Tokenize conversations; one whose template rewrites its past gives one example an answer.

    Args:
        rows: Each with the number of its line.
        tokenizer: The base model's, with a chat template.
        loss_on: Which tokens are learned.

    Raises:
        BaseModelUnusableError: If the chat template refuses a conversation.
    """
    laid_out = [
        (line, pieces)
        for line, row in rows
        for pieces in _lay_out(tokenizer, row.turns, line, loss_on)
    ]
    end = end_of_turn_id(tokenizer)
    # In one call, which tokenizes in parallel.
    encoded = iter(encode(tokenizer, [piece.text for _, pieces in laid_out for piece in pieces]))
    return [_join(pieces, encoded, end, loss_on, line) for line, pieces in laid_out]


def _lay_out(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], line: int, loss_on: LossOn
) -> list[list[_Piece]]:
    """A conversation as pieces, question and answer in turn."""
    answers = [index for index, turn in enumerate(turns) if turn.role == "assistant"]
    learned = [index for index in answers if turns[index].is_learned]
    if loss_on == "last_answer":
        learned = [index for index in learned if index == answers[-1]] or learned[-1:]
    try:
        prompts = {index: render(tokenizer, _messages(turns[:index])) for index in answers}
    except BaseModelUnusableError as error:
        raise BaseModelUnusableError(f"line {line}: {error}") from error
    pieces: list[_Piece] = []
    past, past_is_learned = "", False
    for index in answers:
        if not prompts[index].startswith(past):
            # Such as one that drops the reasoning of earlier answers: each answer with the past
            # that it is given when it is generated.
            return [
                [_Piece(prompts[each], False), _Piece(turns[each].content, True)]
                for each in learned
            ]
        is_learned = index in learned
        pieces += [
            _Piece(prompts[index][len(past) :], False, closes_turn=past_is_learned),
            _Piece(turns[index].content, is_learned),
        ]
        past, past_is_learned = prompts[index] + turns[index].content, is_learned
    return [pieces]


def _join(
    pieces: Sequence[_Piece],
    encoded: Iterable[list[int]],
    end: int,
    loss_on: LossOn,
    line: int,
) -> Example:
    tokens: list[int] = []
    is_answer: list[bool] = []
    for piece, ids in zip(pieces, encoded, strict=False):
        learned = [piece.is_learned] * len(ids)
        if piece.closes_turn and ids[:1] == [end]:
            learned[0] = True
        tokens += ids
        is_answer += learned
    tokens.append(end)
    is_answer.append(pieces[-1].is_learned)
    if loss_on == "all":
        is_answer = [True] * len(tokens)
    is_answer[0] = False
    return Example(torch.tensor(tokens, dtype=torch.int32), torch.tensor(is_answer), line)


def _messages(turns: Iterable[Turn]) -> list[Message]:
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def _apply_template(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool,
) -> str:
    try:
        return tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        raise BaseModelUnusableError(
            f"the chat template of {tokenizer.name_or_path!r} refuses a conversation: "
            f"{error}; give conversations that it takes, or choose another data.chat_template"
        ) from error

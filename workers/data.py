"""From rows to tokens: prompt rendering, answers to learn, held-out rows.

The base model's own chat template renders a conversation. A tokenizer without one gets a plain
layout:

    ### Instruction:
    What is 2 + 2?

    ### Response:

Either way the rendered text holds every special token, so none is added when it is encoded, and
training and generation read exactly the same tokens. Only a row's answer, with the token that ends
the turn, is learned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
import torch

from workers.errors import BaseModelUnusableError, DataInvalidError, RowTooLongError
from workers.rows import InstructionRow, RowError, iter_numbered_rows
from workers.seeds import derive_seed, permutation

if TYPE_CHECKING:  # a registered model ships this module to where jaxtyping may be missing
    from jaxtyping import Int
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, str]
"""One turn: `role` ("system", "user", "assistant") and `content`."""

PLAIN_HEADINGS = {"user": "### Instruction:", "assistant": "### Response:", "system": "### System:"}


def messages_for(row: InstructionRow) -> list[Message]:
    """The one user turn that asks what a row asks."""
    return user_turn(f"{row.instruction}\n\n{row.input}" if row.input else row.instruction)


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
    messages: list[Message] = []
    for shot in shots:
        messages += [*messages_for(shot), {"role": "assistant", "content": shot.output}]
    return render(tokenizer, [*messages, *messages_for(row)])


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    """The text after which the model gives its next turn in a conversation.

    Raises:
        BaseModelUnusableError: If the chat template fails.
    """
    if tokenizer.chat_template is None:
        turns = [f"{PLAIN_HEADINGS[turn['role']]}\n{turn['content']}\n\n" for turn in messages]
        return f"{tokenizer.bos_token or ''}{''.join(turns)}{PLAIN_HEADINGS['assistant']}\n"
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
    if tokenizer.chat_template is None:
        return tokenizer.eos_token_id
    answer = "ANSWER"
    conversation = [*user_turn("QUESTION"), {"role": "assistant", "content": answer}]
    rendered = _apply_template(tokenizer, conversation, add_generation_prompt=False)
    (ending,) = encode(tokenizer, [rendered.rpartition(answer)[2].lstrip()])
    is_special = bool(ending) and ending[0] in tokenizer.added_tokens_decoder
    return ending[0] if is_special else tokenizer.eos_token_id


@dataclass(frozen=True, eq=False)
class Example:
    """A tokenized row: the prompt, then the answer with the token that ends the turn."""

    input_ids: Int[Tensor, " time"]
    num_prompt_tokens: int

    @property
    def num_tokens(self) -> int:
        """Tokens of prompt and answer."""
        return len(self.input_ids)

    @property
    def num_answer_tokens(self) -> int:
        """Tokens that count in the loss."""
        return self.num_tokens - self.num_prompt_tokens


def load_examples(
    path: Path,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None,
    *,
    name: str | None = None,
) -> list[Example]:
    """Read and tokenize the rows of a file.

    Args:
        path: JSON lines, plain or gzip.
        tokenizer: The base model's.
        max_length: Most tokens that a row may have; None for no bound.
        name: What messages call the file, such as the field of the spec; by default its own name.

    Raises:
        DataInvalidError: If the file or one of its rows cannot be read.
        RowTooLongError: If a row has more than `max_length` tokens.
    """
    name = name or path.name
    try:
        lines, rows = zip(*iter_numbered_rows(path), strict=True)
    except RowError as error:
        raise DataInvalidError(f"{name}, {error}") from error
    except OSError as error:
        raise DataInvalidError(
            f"{name}, kept in {path}, cannot be read ({error.strerror}); "
            "upload it again, to storage that every worker sees"
        ) from error
    prompts = encode(tokenizer, [render_prompt(tokenizer, row) for row in rows])
    answers = encode(tokenizer, [row.output for row in rows])
    ending = [end_of_turn_id(tokenizer)]
    examples = [
        Example(torch.tensor(prompt + answer + ending, dtype=torch.int32), len(prompt))
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    _check_lengths(examples, lines, name, max_length)
    return examples


def split_held_out(
    examples: Sequence[Example], num_held_out: int, seed: int
) -> tuple[list[Example], list[Example]]:
    """Draw held-out rows by seed; both parts keep the order of the file.

    Returns:
        The rows to train on and the held-out rows.

    Raises:
        DataInvalidError: If no row would be left to train on.
    """
    if num_held_out >= len(examples):
        raise DataInvalidError(
            f"data.validation_rows is {num_held_out} and the training file has {len(examples)} "
            "rows, so none is left to train on; hold out fewer or upload more"
        )
    order = permutation(len(examples), derive_seed(seed, "held-out"))
    held_out = set(order[:num_held_out])
    return (
        [example for index, example in enumerate(examples) if index not in held_out],
        [example for index, example in enumerate(examples) if index in held_out],
    )


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
            f"the chat template of {tokenizer.name_or_path!r} refuses a plain conversation: "
            f"{error}; correct its chat_template, or remove it to use a plain layout"
        ) from error


def _check_lengths(
    examples: Sequence[Example], lines: Sequence[int], name: str, max_length: int | None
) -> None:
    too_long = [
        (line, example.num_tokens)
        for line, example in zip(lines, examples, strict=True)
        if max_length is not None and example.num_tokens > max_length
    ]
    if too_long:
        line, length = too_long[0]
        raise RowTooLongError(
            f"{name}, line {line} has {length} tokens and at most {max_length} are "
            f"allowed (the smaller of data.max_length and the base model's context); "
            f"{len(too_long)} of {len(examples)} rows are too long: shorten them or leave them out"
        )

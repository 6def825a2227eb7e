"""How a conversation becomes the text and the tokens that the base model reads.

The base model's own chat template renders it. A tokenizer without one gets a plain layout:

    ### Instruction:
    What is 2 + 2?

    ### Response:

Either way the rendered text holds every special token, so nothing is added when it is encoded, and
training and generation read exactly the same tokens.
"""

from collections.abc import Mapping, Sequence

import jinja2
from transformers import PreTrainedTokenizerBase

from workers.errors import BaseModelUnusableError
from workers.rows import InstructionRow

Message = Mapping[str, str]
"""One turn: `role` ("system", "user", "assistant") and `content`."""

PLAIN_HEADINGS = {"user": "### Instruction:", "assistant": "### Response:", "system": "### System:"}


def messages_for(row: InstructionRow) -> list[Message]:
    """The one user turn that asks what a row asks."""
    return user_turn(f"{row.instruction}\n\n{row.input}" if row.input else row.instruction)


def user_turn(text: str) -> list[Message]:
    """A conversation of one user turn."""
    return [{"role": "user", "content": text}]


def render_prompt(tokenizer: PreTrainedTokenizerBase, row: InstructionRow) -> str:
    """The text after which the model answers a row.

    Raises:
        BaseModelUnusableError: If the chat template fails.
    """
    return render(tokenizer, messages_for(row))


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

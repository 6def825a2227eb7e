"""Layouts of a conversation for base models that bring no chat template of their own.

Each is a Jinja template as transformers applies them, with `messages`, `add_generation_prompt` and
the tokenizer's special tokens. Those named after a model family need that family's tokens.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from workers.errors import AdapterUnusableError, BaseModelUnusableError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from workers.specs import ChatTemplateName

TEMPLATE_FILE: Final = "chat_template.jinja"
"""Where an adapter keeps the template that it was trained with; transformers' own name."""

_PLAIN = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ {'system': '### System:\n', 'user': '### Instruction:\n', 'assistant': '### Response:\n'}"
    "[message['role']] + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}"
)
_CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_LLAMA3 = (
    "{{ '<|begin_of_text|>' }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{{ message['content'] + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
_GEMMA = (
    "{{ '<bos>' }}{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ raise_exception('Gemma knows no system turn; put its text in front of the first question')"
    " }}{% endif %}"
    "{{ '<start_of_turn>' + {'user': 'user', 'assistant': 'model'}[message['role']] + '\n' }}"
    "{{ message['content'] + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
_RAW = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)

CHAT_TEMPLATES = MappingProxyType(
    {"plain": _PLAIN, "chatml": _CHATML, "llama3": _LLAMA3, "gemma": _GEMMA, "raw": _RAW}
)
"""Each layout by its name in a spec."""

_NEEDED_TOKENS = {
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "llama3": ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "gemma": ("<bos>", "<start_of_turn>", "<end_of_turn>"),
}


def set_chat_template(
    tokenizer: "PreTrainedTokenizerBase", name: "ChatTemplateName | None"
) -> None:
    """Give a tokenizer the layout that a job asks for; without a name, one only if it has none.

    Raises:
        BaseModelUnusableError: If the tokenizer lacks a token that the layout is made of.
    """
    if name is None:
        tokenizer.chat_template = tokenizer.chat_template or CHAT_TEMPLATES["plain"]
        return
    known = tokenizer.get_vocab()
    if missing := [token for token in _NEEDED_TOKENS.get(name, ()) if token not in known]:
        raise BaseModelUnusableError(
            f"data.chat_template {name!r} needs {', '.join(missing)}, which the tokenizer of "
            f"{tokenizer.name_or_path!r} lacks; choose plain or raw, or leave it out"
        )
    tokenizer.chat_template = CHAT_TEMPLATES[name]


def use_template_of(tokenizer: "PreTrainedTokenizerBase", adapters: Mapping[str, Path]) -> None:
    """Give a tokenizer the layout that adapters were trained with, if it is not the base's own.

    Args:
        tokenizer: The base model's, with a chat template.
        adapters: Folders of saved adapters, by name.

    Raises:
        AdapterUnusableError: If two adapters were trained with different layouts.
    """
    own = tokenizer.chat_template
    layouts = {
        name: (folder / TEMPLATE_FILE).read_text(encoding="utf-8")
        if (folder / TEMPLATE_FILE).is_file()
        else own
        for name, folder in adapters.items()
    }
    for name, layout in layouts.items():
        first = next(iter(layouts))
        if layout != layouts[first]:
            raise AdapterUnusableError(
                f"models {first!r} and {name!r} were trained with different chat templates, and "
                "all models are asked alike: set chat_template, or evaluate them one by one"
            )
        tokenizer.chat_template = layout

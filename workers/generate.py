"""Greedy answers from a base model, with or without an adapter, in batches.

`python -m workers.generate --base-model REF [--adapter DIR] [PROMPT …]` answers its arguments, or
one prompt a line from standard input.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers.utils.logging import disable_progress_bar

from workers.adapter import base_model_of, load_adapter
from workers.base_model import context_length, load_base_model, load_tokenizer
from workers.chat_templates import TEMPLATE_FILE
from workers.data import encode, end_of_turn_id, render, user_turn
from workers.errors import RowTooLongError, WorkerError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_NEW_TOKENS = 256
"""Bound on an answer where the caller names none."""

BATCH_SIZE = 16
"""Prompts in one forward pass where the caller names no number."""


def load_with_adapter(
    base_reference: str | None, adapter_dir: Path | None, dtype: str = "auto"
) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
    """Load a base model, put an adapter on it if one is given, and load the tokenizer.

    Args:
        base_reference: A folder, a Hugging Face id or an MLflow URI; None for the base model that
            the adapter was trained on.
        adapter_dir: Folder of a saved adapter; None for the base model alone.
        dtype: Precision of the base model, or "auto" for the one it is stored in.

    Raises:
        WorkerError: If base model or adapter is missing or unusable.
    """
    if base_reference is None and adapter_dir is None:
        raise ValueError("give a base model, an adapter or both")
    recorded = base_model_of(adapter_dir) if adapter_dir is not None else None
    reference = base_reference or str(recorded)
    model = load_base_model(reference, dtype)
    tokenizer = load_tokenizer(reference)
    if adapter_dir is not None:
        model = load_adapter(model, adapter_dir)
        if (template := adapter_dir / TEMPLATE_FILE).is_file():
            tokenizer.chat_template = template.read_text(encoding="utf-8")
    return model, tokenizer


def render_user_prompt(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """What `generate_batch` takes, for one user turn; the same as in training."""
    return render(tokenizer, user_turn(text))


@torch.inference_mode()
def generate_batch(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int = BATCH_SIZE,
) -> list[str]:
    """Answer rendered prompts greedily; an answer ends with the model's turn.

    Args:
        model: In evaluation mode.
        tokenizer: The base model's.
        prompts: Texts as `render_prompt` makes them, special tokens included.
        max_new_tokens: Most tokens of an answer; fewer where the longest prompt of its batch
            leaves less of the model's context.
        batch_size: Prompts in one forward pass; prompts of like length go together.

    Returns:
        The answers in the order of the prompts, without the prompts and special tokens.

    Raises:
        RowTooLongError: If a prompt leaves nothing of the model's context for an answer.
    """
    prompt_ids = encode(tokenizer, prompts)
    context = context_length(model.config)
    _check_lengths(prompt_ids, context)
    longest_first = sorted(range(len(prompts)), key=lambda index: -len(prompt_ids[index]))
    answers = [""] * len(prompts)
    for first in range(0, len(prompts), batch_size):
        batch = longest_first[first : first + batch_size]
        room = max_new_tokens
        if context is not None:
            room = min(room, context - len(prompt_ids[batch[0]]))
        generated = _generate(model, tokenizer, [prompt_ids[index] for index in batch], room)
        for index, answer in zip(batch, generated, strict=True):
            answers[index] = answer
    return answers


def _generate(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: Sequence[Sequence[int]],
    max_new_tokens: int,
) -> list[str]:
    """Answer one batch, padded on the left so that all answers begin in the same column."""
    width = max(len(ids) for ids in prompt_ids)
    input_ids = torch.full((len(prompt_ids), width), tokenizer.pad_token_id)
    attention_mask = torch.zeros_like(input_ids)
    for row, ids in enumerate(prompt_ids):
        input_ids[row, width - len(ids) :] = torch.tensor(ids)
        attention_mask[row, width - len(ids) :] = 1
    output = model.generate(
        input_ids=input_ids.to(model.device),
        attention_mask=attention_mask.to(model.device),
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=_stop_ids(model, tokenizer),
        pad_token_id=tokenizer.pad_token_id,
    )
    return tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)


def _stop_ids(model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token at which an answer ends: the template's, the tokenizer's and the model's."""
    of_model = model.generation_config.eos_token_id
    of_model = of_model if isinstance(of_model, list) else [of_model]
    stops = {end_of_turn_id(tokenizer), tokenizer.eos_token_id, *of_model}
    return sorted(stops - {None})


def _check_lengths(prompt_ids: Sequence[Sequence[int]], context: int | None) -> None:
    for number, ids in enumerate(prompt_ids, start=1):
        if context is not None and len(ids) >= context:
            raise RowTooLongError(
                f"prompt {number} has {len(ids)} tokens, which leaves no room for an answer in the "
                f"base model's context of {context}; shorten it"
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer the prompts of the command line or of standard input; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m workers.generate", description=__doc__)
    parser.add_argument("prompts", nargs="*", metavar="PROMPT", help="default: lines of stdin")
    parser.add_argument("--base-model", help="default: the one that the adapter was trained on")
    parser.add_argument("--adapter", type=Path, help="folder of a saved adapter")
    parser.add_argument("--max-new-tokens", type=int, default=MAX_NEW_TOKENS)
    parser.add_argument("--json", action="store_true", help="one JSON object for each answer")
    options = parser.parse_args(arguments)
    if options.base_model is None and options.adapter is None:
        parser.error("give --base-model, --adapter or both")
    disable_progress_bar()
    try:
        for prompt, answer in _answers(options):
            line = json.dumps({"prompt": prompt, "answer": answer}) if options.json else answer
            sys.stdout.write(f"{line}\n")
    except WorkerError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _answers(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    model, tokenizer = load_with_adapter(options.base_model, options.adapter)
    prompts = options.prompts or [line.strip() for line in sys.stdin if line.strip()]
    rendered = [render_user_prompt(tokenizer, prompt) for prompt in prompts]
    answers = generate_batch(model, tokenizer, rendered, options.max_new_tokens)
    yield from zip(prompts, answers, strict=True)


if __name__ == "__main__":
    sys.exit(main())

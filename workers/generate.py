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

from transformers.utils.logging import disable_progress_bar

from workers.adapter import base_model_of, load_adapter
from workers.base_model import context_length, load_base_model, load_tokenizer
from workers.chat_templates import TEMPLATE_FILE
from workers.data import encode, end_of_turn_id, render, user_turn
from workers.decoding import (
    Answer,
    BatchLimits,
    Prompt,
    can_decode_together,
    decode,
    decode_one_by_one,
)
from workers.errors import RowTooLongError, WorkerError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_NEW_TOKENS = 256
"""Bound on an answer where the caller names none."""

BATCH_SIZE = 32
"""Prompts that are answered at the same time where the caller names no number."""


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
        max_new_tokens: Most tokens of an answer; fewer where the prompt leaves less of the model's
            context.
        batch_size: Prompts that are answered at the same time.

    Returns:
        The answers in the order of the prompts, without the prompts and special tokens.

    Raises:
        RowTooLongError: If a prompt leaves nothing of the model's context for an answer.
    """
    texts = [""] * len(prompts)
    bounded = bounded_prompts(model, encode(tokenizer, prompts), max_new_tokens)
    for answer in answer_prompts(model, tokenizer, bounded, BatchLimits(max_rows=batch_size)):
        texts[answer.index] = answer_text(tokenizer, answer)
    return texts


def bounded_prompts(
    model: PreTrainedModel | PeftModel,
    input_ids: Sequence[Sequence[int]],
    max_new_tokens: int,
    adapter_name: str | None = None,
) -> list[Prompt]:
    """Prompts whose answers end where the model's context does.

    Args:
        model: That will answer.
        input_ids: Tokens of each prompt.
        max_new_tokens: Most tokens of an answer.
        adapter_name: The adapter that answers; "__base__" for none; None for what is active.

    Raises:
        RowTooLongError: If a prompt leaves nothing of the model's context for an answer.
    """
    context = context_length(model.config)
    prompts = []
    for number, ids in enumerate(input_ids, start=1):
        room = max_new_tokens if context is None else min(max_new_tokens, context - len(ids))
        if room < 1:
            raise RowTooLongError(
                f"prompt {number} has {len(ids)} tokens, which leaves no room for an answer in the "
                f"base model's context of {context}; shorten it"
            )
        prompts.append(Prompt(ids, room, adapter_name))
    return prompts


def answer_prompts(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    limits: BatchLimits,
) -> Iterator[Answer]:
    """Answer prompts greedily, each as soon as its answer ends, in no certain order.

    Args:
        model: In evaluation mode.
        tokenizer: The base model's.
        prompts: Tokens, as `bounded_prompts` makes them.
        limits: How many are answered at the same time.

    Raises:
        AdapterUnusableError: If the model has no adapter of a prompt's name.
    """
    stops = stop_ids(model, tokenizer)
    decoding = decode if can_decode_together(model) else decode_one_by_one
    yield from decoding(model, prompts, stops, limits)


def answer_text(tokenizer: PreTrainedTokenizerBase, answer: Answer) -> str:
    """What was answered, without special tokens."""
    return tokenizer.decode(answer.tokens, skip_special_tokens=True)


def stop_ids(model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token at which an answer ends: the template's, the tokenizer's and the model's."""
    of_model = model.generation_config.eos_token_id
    of_model = of_model if isinstance(of_model, list) else [of_model]
    stops = {end_of_turn_id(tokenizer), tokenizer.eos_token_id, *of_model}
    return sorted(stops - {None})


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

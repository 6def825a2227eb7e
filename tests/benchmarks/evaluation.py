"""What evaluating in batches is worth: beside one row at a time, and beside padded batches.

    make bench-eval
    python tests/benchmarks/evaluation.py --task svamp --rounds 4 --dtypes float32 bfloat16

Runs on the CPU, on questions of a benchmark as an evaluation asks them, greedily. In each round
every method runs once, in an order that rotates:

    ours       workers.decoding: ended rows leave the batch, and prompts that wait take their places
    padded     transformers' generate in batches of like length, each as slow as its longest answer
    alone      transformers' generate, one row at a time
    options    workers.option_likelihood on the options of a task, beside one option at a time
    adapters   two HypLoRA adapters and the base model in one pass, beside one after the other

One row at a time takes long, so each round asks other rows so, every `--alone-every`-th of a list
sorted by length; its rows a second are held to those of all rows. Ratios are medians over the
rounds with the smallest and the largest.

The last line is `RESULT {json}`, null where a method was left out, each figure the worst over the
dtypes measured:

    rows_per_s_vs_one_at_a_time     ours over alone
    rows_per_s_vs_padded_batches    ours over padded
    equal_to_one_at_a_time          share of answers that are, token by token, those of alone
    options_per_s_vs_one_at_a_time  log-likelihoods: ours over a forward pass for each option
    adapters_in_one_pass            rows a second over those of one adapter after the other
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from machine import machine, num_cores
from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from deploy.demo_assets import ensure_base_model
from workers.adapter import build_adapter
from workers.base_model import load_base_model, load_tokenizer
from workers.cache import cache_folder
from workers.data import encode, render
from workers.decoding import BatchLimits, Prompt
from workers.generate import answer_prompts, bounded_prompts, stop_ids
from workers.option_likelihood import OptionQuestion, encode_choices, log_likelihoods
from workers.specs import HypLoraSpec
from workers.tasks.few_shot import draw_shots, with_shots
from workers.tasks.registry import task_named
from workers.tasks.task import Question

PROJECT = Path(__file__).parents[2]
METHODS = ("ours", "padded", "alone", "options", "adapters")
FOLDERS = ("arithmetic/test", "commonsense/test")
Tokens = dict[int, tuple[int, ...]]
"""Answers by index of the prompt, each with the token that ends it."""


def questions_of(options: argparse.Namespace, name: str) -> list[Question]:
    """Draw questions of a benchmark, with examples drawn from its other rows."""
    paths = [options.data / folder / f"{name}.jsonl.gz" for folder in FOLDERS]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        raise SystemExit(f"{paths[0]} is missing; give --data, the folder of the benchmarks' rows")
    with found.open("rb") as file:
        pool = list(task_named(name).questions(file))
    chosen = draw_shots(pool, min(options.rows, len(pool)), options.seed)
    shots = draw_shots(pool, options.shots, options.seed + 1, never=chosen)
    return [with_shots(question, shots) for question in chosen]


def generated(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    groups: Sequence[Sequence[int]],
) -> Tokens:
    """Answer groups of prompts by transformers' generate, each padded on the left."""
    answers: Tokens = {}
    stops = stop_ids(model, tokenizer)
    for group in groups:
        width = max(len(prompts[index].input_ids) for index in group)
        input_ids = torch.full((len(group), width), tokenizer.pad_token_id)
        attention_mask = torch.zeros_like(input_ids)
        for row, index in enumerate(group):
            ids = torch.tensor(prompts[index].input_ids)
            input_ids[row, width - len(ids) :] = ids
            attention_mask[row, width - len(ids) :] = 1
        output = model.generate(
            input_ids=input_ids,
            attention_mask=attention_mask,
            do_sample=False,
            max_new_tokens=max(prompts[index].max_new_tokens for index in group),
            eos_token_id=stops,
            pad_token_id=tokenizer.pad_token_id,
        )
        for index, row in zip(group, output[:, width:].tolist(), strict=True):
            ends = [at for at, token in enumerate(row, start=1) if token in stops]
            answers[index] = tuple(row[: ends[0]] if ends else row)
    return answers


def together(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    limits: BatchLimits,
) -> Tokens:
    """Answer prompts as an evaluation does."""
    found = answer_prompts(model, tokenizer, prompts, limits)
    return {answer.index: answer.tokens for answer in found}


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came out."""
    started = time.perf_counter()
    outcome = run()
    return time.perf_counter() - started, outcome


def measure_generation(
    options: argparse.Namespace, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> dict[str, Any]:
    """Rounds of the three ways to generate, and how many answers are the same."""
    texts = [render(tokenizer, each.messages) for each in questions_of(options, options.task)]
    prompts = bounded_prompts(model, encode(tokenizer, texts), options.max_new_tokens)
    by_length = sorted(range(len(prompts)), key=lambda index: -len(prompts[index].input_ids))
    size = options.padded_rows
    padded = [by_length[first : first + size] for first in range(0, len(prompts), size)]
    limits = BatchLimits(max_rows=options.batch_rows)
    speeds: dict[str, list[float]] = {}
    answers: dict[str, Tokens] = {}
    names = [name for name in ("ours", "padded", "alone") if name in options.methods]
    generated(model, tokenizer, prompts, [by_length[-1:]])  # the first pass is slower
    for number in range(options.rounds):
        rows = [[index] for index in by_length[number % options.alone_every :: options.alone_every]]
        runs = {
            "ours": partial(together, model, tokenizer, prompts, limits),
            "padded": partial(generated, model, tokenizer, prompts, padded),
            "alone": partial(generated, model, tokenizer, prompts, rows),
        }
        start = number % len(names)
        for name in names[start:] + names[:start]:
            seconds, found = timed(runs[name])
            answers.setdefault(name, {}).update(found)
            speeds.setdefault(name, []).append(len(found) / seconds)
            print(f"round {number + 1}: {name}, {speeds[name][-1]:.3f} rows/s", flush=True)
    figures: dict[str, Any] = {
        "rows_per_s": speeds,
        "tokens_of_prompts": sum(len(each.input_ids) for each in prompts),
        "tokens_of_answers": {
            name: sum(map(len, tokens.values())) for name, tokens in answers.items()
        },
    }
    for other, figure in (
        ("alone", "rows_per_s_vs_one_at_a_time"),
        ("padded", "rows_per_s_vs_padded_batches"),
    ):
        if "ours" in speeds and other in speeds:
            figures[figure] = ratios(speeds["ours"], speeds[other])
            figures[f"equal_to_{other}"] = equal_share(answers["ours"], answers[other])
    return figures


def equal_share(ours: Tokens, others: Tokens) -> float:
    """Share of the answers of others that ours are, token by token."""
    return statistics.fmean(ours[index] == tokens for index, tokens in others.items())


def ratios(ours: Sequence[float], others: Sequence[float]) -> list[float]:
    """Median, smallest and largest ratio of the same round."""
    each = sorted(one / other for one, other in zip(ours, others, strict=True))
    return [statistics.median(each), each[0], each[-1]]


def measure_options(
    options: argparse.Namespace, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> dict[str, Any]:
    """Rounds of options in packed passes, and of a forward pass for each option."""
    questions = [
        encode_choices(tokenizer, each.choices)
        for each in questions_of(options, options.option_task)
        if each.choices is not None
    ]
    by_length = sorted(range(len(questions)), key=lambda index: -questions[index].num_tokens)
    some = by_length[:: options.alone_every]
    speeds: dict[str, list[float]] = {"packed": [], "alone": []}
    furthest = 0.0
    for _ in range(options.rounds):
        seconds, packed = timed(lambda: dict(log_likelihoods(model, questions)))
        speeds["packed"].append(sum(map(len, packed.values())) / seconds)
        seconds, alone = timed(lambda: [one_by_one(model, questions[index]) for index in some])
        speeds["alone"].append(sum(map(len, alone)) / seconds)
        for index, sums in zip(some, alone, strict=True):
            differences = [abs(a - b) for a, b in zip(packed[index], sums, strict=True)]
            furthest = max(furthest, *differences)
    return {
        "options_per_s": speeds,
        "options_per_s_vs_one_at_a_time": ratios(speeds["packed"], speeds["alone"]),
        "largest_difference_nats": furthest,
    }


@torch.no_grad()
def one_by_one(model: PreTrainedModel, question: OptionQuestion) -> list[float]:
    """Score each option in a forward pass of its own."""
    sums = []
    for option in question.options:
        ids = torch.tensor(option.input_ids)[None]
        kept = len(option.input_ids) - option.num_context + 1
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=kept).logits[0, :-1]
        chosen = logits.float().log_softmax(dim=-1).gather(1, ids[0, option.num_context :, None])
        sums.append(float(chosen.sum()))
    return sums


def measure_adapters(
    options: argparse.Namespace, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> dict[str, Any]:
    """Rounds of three models in one pass, and of one after the other."""
    names = ("first", "second", "__base__")
    torch.manual_seed(options.seed)
    adapted = build_adapter(model, HypLoraSpec(init_weights=False, alpha=1))
    adapted.add_adapter("second", adapted.peft_config["default"])
    texts = [render(tokenizer, each.messages) for each in questions_of(options, options.task)]
    ids = encode(tokenizer, texts[: options.adapter_rows])
    limits = BatchLimits(max_rows=options.batch_rows)
    groups = [
        bounded_prompts(
            adapted, ids, options.max_new_tokens, "default" if name == "first" else name
        )
        for name in names
    ]
    adapted.eval()
    speeds: dict[str, list[float]] = {"one pass": [], "one after the other": []}
    for number in range(options.rounds):
        passes = [[list(chain.from_iterable(groups))], groups]
        for kind, each in list(zip(speeds, passes, strict=True))[:: 1 if number % 2 else -1]:
            seconds, _ = timed(
                partial(
                    lambda some: [together(adapted, tokenizer, one, limits) for one in some], each
                )
            )
            speeds[kind].append(len(names) * len(ids) / seconds)
            print(f"round {number + 1}: {kind}, {speeds[kind][-1]:.3f} rows/s", flush=True)
    adapted.unload()
    return {
        "adapter_rows_per_s": speeds,
        "adapters_in_one_pass": ratios(speeds["one pass"], speeds["one after the other"]),
    }


def measure(options: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """Measure all methods in one dtype."""
    model = load_base_model(str(options.base_model), dtype)
    tokenizer = load_tokenizer(str(options.base_model))
    figures: dict[str, Any] = {}
    if {"ours", "padded", "alone"} & set(options.methods):
        figures |= measure_generation(options, model, tokenizer)
    if "options" in options.methods:
        figures |= measure_options(options, model, tokenizer)
    if "adapters" in options.methods:
        figures |= measure_adapters(options, model, tokenizer)
    for name, values in figures.items():
        print(f"{dtype}: {name} {values}", flush=True)
    return figures


def result_of(by_dtype: dict[str, dict[str, Any]]) -> dict[str, float | None]:
    """The worst figure over the dtypes."""

    def worst(name: str) -> float | None:
        values = [figures[name] for figures in by_dtype.values() if name in figures]
        return (
            round(min(each[0] if isinstance(each, list) else each for each in values), 3)
            if (values)
            else None
        )

    return {
        "rows_per_s_vs_one_at_a_time": worst("rows_per_s_vs_one_at_a_time"),
        "rows_per_s_vs_padded_batches": worst("rows_per_s_vs_padded_batches"),
        "equal_to_one_at_a_time": worst("equal_to_alone"),
        "options_per_s_vs_one_at_a_time": worst("options_per_s_vs_one_at_a_time"),
        "adapters_in_one_pass": worst("adapters_in_one_pass"),
    }


def options_of_command_line() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", default=",".join(METHODS), help="some of them, by commas")
    parser.add_argument("--task", default="gsm8k", help="whose questions are answered")
    parser.add_argument("--option-task", default="arc_c", help="whose options are scored")
    parser.add_argument("--shots", type=int, default=0, help="examples before each question")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--adapter-rows", type=int, default=24, help="rows of each adapter")
    parser.add_argument("--alone-every", type=int, default=8, help="rows that are asked alone")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--batch-rows", type=int, default=64, help="rows at a time, ours")
    parser.add_argument("--padded-rows", type=int, default=16, help="rows of a padded batch")
    parser.add_argument("--data", type=Path, default=PROJECT.parent / "shared/data")
    parser.add_argument("--base-model", type=Path, help="a folder, by default the demo's model")
    parser.add_argument("--dtypes", nargs="+", default=["float32"], choices=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=num_cores(), help="by default all cores")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    options = parser.parse_args()
    options.methods = options.methods.split(",")
    if unknown := set(options.methods) - set(METHODS):
        parser.error(f"unknown methods {sorted(unknown)}; there are {', '.join(METHODS)}")
    return options


def main() -> None:
    options = options_of_command_line()
    torch.set_num_threads(options.threads)
    console = Console(stderr=True)
    options.base_model = options.base_model or ensure_base_model(cache_folder(), console)
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "threads": options.threads,
        "versions": ", ".join(
            f"{name} {version(name)}" for name in ("torch", "transformers", "peft")
        ),
        "base_model": options.base_model.name,
        "rows": f"{options.rows} of {options.task}, {options.shots} examples",
        "max_new_tokens": options.max_new_tokens,
        "batch_rows": options.batch_rows,
        "padded_rows": options.padded_rows,
        "rounds": options.rounds,
    }
    print(", ".join(f"{name} {value}" for name, value in about.items()), flush=True)
    by_dtype = {name: measure(options, name) for name in options.dtypes}
    result = result_of(by_dtype)
    if options.json:
        content = {**about, "dtypes": by_dtype, "result": result}
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    print(f"RESULT {json.dumps(result)}")


if __name__ == "__main__":
    main()

"""What the training loop is worth: beside TRL's SFTTrainer and a padded Hugging Face Trainer.

    make bench-training
    python tests/benchmarks/training.py --rows-from gsm8k --micro-batch 4 --methods ours,trl

Runs on the CPU. One epoch over real word problems, seen by every method as the same tokens of the
same rows, the answers alone learned, LoRA of the same shape and initial weights, fused AdamW,
linear decay, the same batches and number of steps, all cores. Each method has a process of its own
that stays. In each round every method trains once from the start, in an order that rotates; only
the loop is timed, from the begin of its first step to the end of its last. Ratios are medians over
the rounds with their middle half.

    ours       workers.train_loop with LoRA, compared with the others, and with HypLoRA
    padded     transformers' Trainer, batches padded to a multiple of 8, as LLM-Adapters trains
    trl        SFTTrainer: each of `TRL_VARIANTS` trains a few rows, the fastest enter the rounds
    reporting  our loop alone beside the same training as a job of the embedded stack

Each loss is the sum over a step's answer tokens divided by their number: ours by itself, the others
by transformers' `num_items_in_batch`. TRL packs and groups by length over the whole epoch, which
orders rows in another way, so there the mean over the epoch is the one to compare.

A padded pass of 16 rows of GSM8K takes tens of GB: `--micro-batch` sets the rows of a pass, for all
but ours, which fills its passes up to `micro_batch_tokens`.

TRL needs `pip install --no-deps trl`, which `make` does beside the environment. It gets tokens and
labels instead of messages, since it would learn the line break after an answer's end as well. What
it offers besides needs CUDA: FlashAttention, Liger and other kernels; FlexAttention has no backward
pass on a CPU.

The last line is `RESULT {json}`, null where a method was left out, each figure the worst over the
dtypes measured, those of jobs in the first dtype alone:

    tokens_per_s_vs_trl          non-padding tokens a second: ours over TRL's best variant
    tokens_per_s_vs_padded       the same over the padded loop
    hyplora_tokens_per_s_vs_trl  HypLoRA in our loop over LoRA in TRL's best variant
    reporting_overhead           share of a job's step that goes into the stack, median over steps;
                                 the job leaves the stack one core, as training on a GPU does
    reporting_and_checkpoints    the same over all steps together, checkpoints included
    reporting_on_all_cores       reporting_overhead where the job takes every core, so that Ray,
                                 MLflow and the service have to interrupt it
"""

import argparse
import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from machine import machine, num_cores
from rich.console import Console
from training_method import MethodConfig, Training
from training_process import Method
from training_reporting import reporting_overhead
from training_rows import FILES, write_rows

from deploy.demo_assets import ensure_base_model
from workers.cache import cache_folder

PROJECT = Path(__file__).parents[2]
METHODS = ("ours", "padded", "trl", "reporting")
OURS, OURS_HYPLORA, PADDED = "ours, LoRA", "ours, HypLoRA", "padded"
TRL_VARIANTS: dict[str, dict[str, Any]] = {
    "TRL padded": {},
    "TRL padded, eager attention": {"attention": "eager"},
    "TRL padded, 4 rows a pass": {"micro_batch": 4},
    "TRL grouped by length, 4 rows a pass": {
        "micro_batch": 4,
        "arguments": {"train_sampling_strategy": "group_by_length"},
    },
    "TRL padding-free": {"arguments": {"padding_free": True}},
    "TRL padding-free, 4 rows a pass": {"micro_batch": 4, "arguments": {"padding_free": True}},
    "TRL packed": {"arguments": {"packing": True, "packing_strategy": "bfd"}},
}
AUTOCAST_VARIANTS: dict[str, dict[str, Any]] = {
    "TRL padding-free, autocast": {"arguments": {"padding_free": True, "bf16": True}},
    "TRL packed, autocast": {
        "arguments": {"packing": True, "packing_strategy": "bfd", "bf16": True}
    },
}
"""Tried with a bfloat16 model alone: they run the adapter in bfloat16, too, unlike the others."""

Rounds = dict[str, list[Training]]


def our_config(options: argparse.Namespace, dtype: str, adapter: str) -> MethodConfig:
    """Our loop; the same training with another library is a change of this."""
    return MethodConfig(
        library="ours",
        base_model=str(options.base_model),
        adapter={"method": adapter, "r": options.rank, "alpha": 2.0 * options.rank},
        training={
            "learning_rate": options.learning_rate,
            "num_epochs": 1,
            "batch_size": options.batch_size,
            "dtype": dtype,
            "seed": options.seed,
            "checkpoint_every_steps": None,
        },
        threads=options.threads,
        micro_batch=options.micro_batch,
    )


def fastest_variants(
    options: argparse.Namespace, dtype: str, rows: Path, stack: ExitStack
) -> list[Method]:
    """Let every variant of TRL train on a few rows, and keep the fastest."""
    variants = TRL_VARIANTS | (AUTOCAST_VARIANTS if dtype == "bfloat16" else {})
    lora = replace(our_config(options, dtype, "lora"), library="trl")
    ranked: list[tuple[float, Method]] = []
    for name, settings in variants.items():
        method = Method(name, replace(lora, **settings))
        try:
            tokens_per_s = speed(method.train(rows))
        except RuntimeError as error:
            method.close()
            print(f"{dtype} trial: {name} does not run here: {error}", flush=True)
            continue
        print(f"{dtype} trial: {name}, {tokens_per_s:.0f} tokens/s", flush=True)
        ranked = sorted([*ranked, (tokens_per_s, method)], key=lambda one: -one[0])
        for _, slower in ranked[options.finalists :]:
            slower.close()  # at once, since each holds memory
        ranked = ranked[: options.finalists]
    if not ranked:
        raise SystemExit("no variant of TRL runs; is it installed? See `make bench-training`")
    return [stack.enter_context(closing(method)) for _, method in ranked]


def run_rounds(methods: Sequence[Method], rows: Path, num_rounds: int) -> Rounds:
    """Let every method train once a round, each round from another one on."""
    trainings: Rounds = defaultdict(list)
    for number in range(num_rounds):
        start = number % len(methods)
        for method in [*methods[start:], *methods[:start]]:
            training = method.train(rows)
            trainings[method.name].append(training)
            print(
                f"round {number + 1}: {method.name}, {speed(training):.0f} tokens/s in "
                f"{training.seconds:.1f} s",
                flush=True,
            )
    counts = {
        (each.num_tokens, each.num_answer_tokens, len(each.losses))
        for some in trainings.values()
        for each in some
    }
    assert len(counts) == 1, f"tokens, learned tokens and steps must be equal: {counts}"
    return trainings


def speed(training: Training) -> float:
    """Tokens a second, padding aside."""
    return training.num_tokens / training.seconds


def ratio(trainings: Rounds, method: str, reference: str) -> tuple[float, float, float]:
    """Median and quartiles of a method's speed over another's in the same round."""
    pairs = zip(trainings[method], trainings[reference], strict=True)
    ratios = [speed(ours) / speed(theirs) for ours, theirs in pairs]
    if len(ratios) == 1:
        return ratios[0], ratios[0], ratios[0]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return middle, low, high


def measure(options: argparse.Namespace, dtype: str, rows: Path, trial: Path) -> dict[str, Any]:
    """Measure all methods in one dtype and print their table."""
    with ExitStack() as stack:
        lora = our_config(options, dtype, "lora")
        methods = []
        if "ours" in options.methods:
            hyplora = our_config(options, dtype, "hyplora")
            methods += [Method(OURS, lora), Method(OURS_HYPLORA, hyplora)]
        if "padded" in options.methods:
            methods.append(Method(PADDED, replace(lora, library="padded")))
        for method in methods:
            stack.enter_context(closing(method))
        if "trl" in options.methods:
            methods += fastest_variants(options, dtype, trial, stack)
        if not methods:
            return {}
        trainings = run_rounds(methods, rows, options.rounds)
    print_table(trainings, dtype)
    figures: dict[str, Any] = {
        "trainings": {name: [asdict(one) for one in some] for name, some in trainings.items()}
    }
    variants = [name for name in trainings if name.startswith("TRL")]
    if variants:
        best = max(variants, key=lambda name: statistics.median(map(speed, trainings[name])))
        figures["best_trl"] = best
    if OURS in trainings and variants:
        figures["tokens_per_s_vs_trl"] = ratio(trainings, OURS, best)
        figures["hyplora_tokens_per_s_vs_trl"] = ratio(trainings, OURS_HYPLORA, best)
    if OURS in trainings and PADDED in trainings:
        figures["tokens_per_s_vs_padded"] = ratio(trainings, OURS, PADDED)
    return figures


def print_table(trainings: Rounds, dtype: str) -> None:
    """Print speed, memory and loss of each method."""
    reference = OURS if OURS in trainings else next(iter(trainings))
    steps = len(trainings[reference][0].losses)
    last = max(1, steps // 4)
    print(
        f"\n{dtype}, {steps} steps\n\n| method | tokens/s | {reference} / it | middle half | "
        f"peak MiB | loss, last {last} steps | loss, epoch |\n"
        "| --- | --- | --- | --- | --- | --- | --- |"
    )
    for name, some in trainings.items():
        middle, low, high = ratio(trainings, reference, name)
        typical = statistics.median(map(speed, some))
        losses = some[0].losses
        print(
            f"| {name} | {typical:.0f} | {middle:.3f} | {low:.3f} - {high:.3f} | "
            f"{some[-1].peak_bytes / 2**20:.0f} | {statistics.fmean(losses[-last:]):.4f} | "
            f"{statistics.fmean(losses):.4f} |"
        )
    print(flush=True)


def measure_reporting(
    options: argparse.Namespace, dtype: str, rows: Path
) -> dict[str, list[float]]:
    """Measure what the stack around the loop costs, with a core for it and without."""
    config = our_config(options, dtype, "hyplora")
    num_rows = sum(1 for _ in rows.open())
    epochs = -(-options.job_steps * options.batch_size // num_rows)
    training = config.training | {"num_epochs": epochs, "max_steps": options.job_steps}
    config = replace(config, training=training, threads=max(1, options.threads - 1))
    everywhere = replace(config, threads=options.threads)
    figures = _shares(config, rows, options.job_rounds)
    figures["reporting_on_all_cores"] = _shares(everywhere, rows, options.job_rounds)[
        "reporting_overhead"
    ]
    return figures


def _shares(config: MethodConfig, rows: Path, num_rounds: int) -> dict[str, list[float]]:
    print(f"jobs of {config.threads} threads", flush=True)
    with closing(Method("ours, bare", config)) as bare:
        return reporting_overhead(config, rows, lambda: bare.train(rows), num_rounds)


def result_of(
    by_dtype: Mapping[str, dict[str, Any]], reporting: dict[str, list[float]]
) -> dict[str, float | None]:
    """Condense to the worst figure over the dtypes, and to the median over the rounds of jobs."""

    def worst(what: str) -> float | None:
        values = [figures[what][0] for figures in by_dtype.values() if what in figures]
        return round(min(values), 3) if values else None

    names = ("tokens_per_s_vs_trl", "tokens_per_s_vs_padded", "hyplora_tokens_per_s_vs_trl")
    jobs = ("reporting_overhead", "reporting_and_checkpoints", "reporting_on_all_cores")
    return {name: worst(name) for name in names} | {
        name: round(statistics.median(reporting[name]), 4) if name in reporting else None
        for name in jobs
    }


def options_of_command_line() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", default=",".join(METHODS), help="some of them, by commas")
    parser.add_argument("--rows", type=int, default=256, help="rows of the epoch")
    parser.add_argument("--rows-from", default="mawps", choices=sorted(FILES))
    parser.add_argument("--data", type=Path, default=PROJECT.parent / "shared/data")
    parser.add_argument("--base-model", type=Path, help="a folder, by default the demo's model")
    parser.add_argument("--dtypes", nargs="+", default=["float32"], choices=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16, help="rows of an optimizer step")
    parser.add_argument("--micro-batch", type=int, default=16, help="rows of a padded pass")
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trial-rows", type=int, default=64, help="rows of TRL's trials")
    parser.add_argument("--finalists", type=int, default=2, help="variants of TRL in the rounds")
    parser.add_argument("--job-steps", type=int, default=52, help="steps of each job")
    parser.add_argument("--job-rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=num_cores(), help="by default all cores")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    options = parser.parse_args()
    options.methods = options.methods.split(",")
    if unknown := set(options.methods) - set(METHODS):
        parser.error(f"unknown methods {sorted(unknown)}; there are {', '.join(METHODS)}")
    for rows in (options.rows, options.trial_rows):
        if rows % options.batch_size or options.batch_size % options.micro_batch:
            parser.error("rows must be whole batches, and batches whole micro batches")
    return options


def main() -> None:
    options = options_of_command_line()
    console = Console(stderr=True)
    options.base_model = options.base_model or ensure_base_model(cache_folder(), console)
    with tempfile.TemporaryDirectory() as folder:
        rows, trial = Path(folder, "rows.jsonl"), Path(folder, "trial.jsonl")
        drawn_from = (options.data, options.rows_from)
        source = write_rows(*drawn_from, options.rows, options.seed, rows)
        write_rows(*drawn_from, min(options.trial_rows, options.rows), options.seed, trial)
        about = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": machine(),
            "threads": options.threads,
            "versions": ", ".join(
                f"{name} {_version(name)}"
                for name in ("torch", "transformers", "peft", "accelerate", "trl")
            ),
            "base_model": options.base_model.name,
            "rows": f"{options.rows} of {source}",
            "batch_size": options.batch_size,
            "rank": options.rank,
            "rounds": options.rounds,
        }
        print(", ".join(f"{name} {value}" for name, value in about.items()), flush=True)
        by_dtype = {name: measure(options, name, rows, trial) for name in options.dtypes}
        reporting: dict[str, list[float]] = {}
        if "reporting" in options.methods:
            reporting = measure_reporting(options, options.dtypes[0], rows)
    result = result_of(by_dtype, reporting)
    if options.json:
        content = {**about, "dtypes": by_dtype, "reporting": reporting, "result": result}
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    print(f"RESULT {json.dumps(result)}")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


if __name__ == "__main__":
    main()

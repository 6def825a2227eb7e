"""What the settings of a HypLoRA adapter do to the loss on held-out rows, seed by seed.

    python tests/benchmarks/adapter_defaults.py --steps 60 --seeds 0 1 2 --json FILE

Prints the table that docs/method.md quotes: mean held-out loss in nats an answer token, and the
mean difference from LoRA with the same seed, which shares order of rows and initial A. Model and
rows are the demo's; a training takes about a minute on two cores.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from rich.console import Console

from deploy.demo_assets import ensure_base_model, ensure_rows
from deploy.demo_rows import read_problems, split_problems
from workers.cache import cache_folder
from workers.reporter import SilentReporter
from workers.specs import AdapterSpec, DataSpec, HypLoraSpec, LoraSpec, RunMetric, TrainingSpec
from workers.train_loop import train
from workers.train_setup import TrainTask

NUM_HELD_OUT = 200
LORA = "LoRA"
ADAPTERS: dict[str, AdapterSpec] = {
    LORA: LoraSpec(),
    "K = 1": HypLoraSpec(),
    "K = 0.1": HypLoraSpec(curvature=0.1),
    "K = 0.01": HypLoraSpec(curvature=0.01),
    "K learned from 1, per layer": HypLoraSpec(learn_curvature=True),
    "K learned from 0.1, per layer": HypLoraSpec(learn_curvature=True, curvature=0.1),
    "K learned from 0.1, shared": HypLoraSpec(
        learn_curvature=True, share_curvature=True, curvature=0.1
    ),
    "K = 0.1, nu learned": HypLoraSpec(curvature=0.1, learn_norm_scale=True),
    "K = 1, not rescaled": HypLoraSpec(rescale_output=False),
    "stereographic, K = 0.5": HypLoraSpec(projection="stereographic", curvature=0.5),
    "A normal": HypLoraSpec(init_weights="gaussian"),
}


class LastMetrics(SilentReporter):
    """A reporter that keeps the last value of each metric."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.values.update(values)


def summary(values: list[float]) -> tuple[float, float]:
    """Mean and its standard error; an infinite error for a single value."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("inf")
    return statistics.fmean(values), error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--json", type=Path, help="where to write the losses")
    options = parser.parse_args()
    console = Console(width=200)
    base_model = ensure_base_model(cache_folder(), console)
    problems = read_problems(ensure_rows(cache_folder(), console))
    losses: dict[str, list[float]] = {name: [] for name in ADAPTERS}
    curvatures: dict[str, list[float]] = {name: [] for name in ADAPTERS}
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, "train.jsonl"), Path(folder, "held-out.jsonl")]
        for file, part in zip(files, split_problems(problems, NUM_HELD_OUT), strict=True):
            file.write_text("".join(json.dumps(problem.as_row()) + "\n" for problem in part))
        data = DataSpec(train=files[0].as_uri(), validation=files[1].as_uri())
        for seed in options.seeds:
            training = TrainingSpec(
                learning_rate=options.learning_rate,
                batch_size=4,
                max_steps=options.steps,
                warmup_steps=options.steps // 10,
                seed=seed,
            )
            for name, adapter in ADAPTERS.items():
                last = LastMetrics()
                task = TrainTask(str(base_model), adapter, data, {}, training)
                result = train(task, last, torch.device("cpu"))
                losses[name].append(result.eval_loss)
                curvatures[name].append(last.values.get(RunMetric.CURVATURE, float("nan")))
                console.print(f"seed {seed}, {name}: {result.eval_loss:.4f}", style="dim")
    console.print("| adapter | held-out loss | minus LoRA's | mean K at the end |")
    console.print("| --- | --- | --- | --- |")
    for name, values in losses.items():
        mean, error = summary(values)
        pairs = zip(values, losses[LORA], strict=True)
        gap, gap_error = summary([ours - lora for ours, lora in pairs])
        k = statistics.fmean(curvatures[name])
        console.print(
            f"| {name} | {mean:.4f} ± {error:.4f} | {gap:+.4f} ± {gap_error:.4f} | {k:.3g} |"
        )
    if options.json:
        options.json.write_text(json.dumps({"steps": options.steps, "losses": losses}, indent=2))


if __name__ == "__main__":
    main()

"""What the radius cap and the curvature do on a real model: radii of its tokens, then trainings.

    python tests/benchmarks/radius_cap.py --steps 60

Prints the tables that docs/method.md quotes. Model and rows are the demo's; a training takes about
two minutes on two cores.
"""

import argparse
import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn

from deploy.demo_assets import ensure_base_model, ensure_rows
from deploy.demo_rows import read_problems, split_problems
from workers.base_model import load_base_model, load_tokenizer
from workers.cache import cache_folder
from workers.data import tokenize
from workers.reporter import SilentReporter
from workers.sources import read_rows
from workers.specs import AdapterSpec, DataSpec, HypLoraSpec, LoraSpec, RunMetric, TrainingSpec
from workers.train_loop import train
from workers.train_setup import TrainTask

NUM_HELD_OUT = 200
NUM_MEASURED = 64


class GradientNorms(SilentReporter):
    """A reporter that keeps the gradient norm of each step and nothing else."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.values.append(values[RunMetric.GRADIENT_NORM])


def token_radii(base_model: Path, rows: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Measure |x| / sqrt(d_in) at the inputs of every kind of projection.

    Returns:
        By the projection's name: radii of the first tokens of the rows, and of all others.
    """
    model = load_base_model(str(base_model), "float32")
    first, later = defaultdict[str, list[Tensor]](list), defaultdict[str, list[Tensor]](list)

    def record(kind: str, x: Tensor) -> None:
        radii = x[0].norm(dim=-1) / math.sqrt(x.shape[-1])
        first[kind].append(radii[:1])
        later[kind].append(radii[1:])

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name.endswith("_proj"):
            kind = name.rsplit(".", 1)[1]
            module.register_forward_pre_hook(lambda _, inputs, kind=kind: record(kind, inputs[0]))
    with torch.no_grad():
        measured = read_rows(rows.as_uri(), name="ROWS")[:NUM_MEASURED]
        for row in tokenize(measured, load_tokenizer(str(base_model))):
            model(row.input_ids.unsqueeze(0).long())
    return {kind: (torch.cat(first[kind]), torch.cat(later[kind])) for kind in first}


def print_radii(radii: Mapping[str, tuple[Tensor, Tensor]], console: Console) -> None:
    """Print quantiles as a Markdown table."""
    console.print("| projection | median | 99 % | 99.9 % | largest | largest of first tokens |")
    console.print("| --- | --- | --- | --- | --- | --- |")
    for kind, (first, later) in radii.items():
        ordered = later.sort().values
        quantiles = [ordered[int(share * (len(later) - 1))] for share in (0.5, 0.99, 0.999, 1)]
        cells = [f"{value.item():.2f}" for value in (*quantiles, first.max())]
        console.print(f"| {kind} | {' | '.join(cells)} |")


def print_trainings(
    base_model: Path, rows: Path, held_out: Path, options: argparse.Namespace, console: Console
) -> None:
    """Train LoRA and HypLoRA at each curvature, cap and seed, and print a Markdown table."""
    adapters: dict[str, AdapterSpec] = {"LoRA | none": LoraSpec()}
    for curvature in options.curvatures:
        for cap in options.caps:
            adapter = HypLoraSpec(curvature=curvature, radius_cap=cap)
            adapters[f"{curvature:g} | {cap:g}"] = adapter
    console.print("| seed | K | cap | first gradient norm | median | largest | held-out loss |")
    console.print("| --- | --- | --- | --- | --- | --- | --- |")
    data = DataSpec(train=rows.as_uri(), validation=held_out.as_uri())
    for seed in options.seeds:
        training = TrainingSpec(
            learning_rate=1e-3,
            batch_size=4,
            max_steps=options.steps,
            warmup_steps=options.steps // 10,
            seed=seed,
        )
        for name, adapter in adapters.items():
            task = TrainTask(str(base_model), adapter, data, {}, training)
            norms = GradientNorms()
            loss = train(task, norms, torch.device("cpu")).eval_loss
            ordered = sorted(norms.values)
            summary = (norms.values[0], ordered[len(ordered) // 2], ordered[-1], loss)
            cells = " | ".join(f"{value:.4g}" for value in summary)
            console.print(f"| {seed} | {name} | {cells} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60, help="steps a training; 0 for none")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--curvatures", type=float, nargs="+", default=[1.0, 0.1])
    parser.add_argument("--caps", type=float, nargs="+", default=[2.0, 4.0, 8.0, 12.0])
    options = parser.parse_args()
    console = Console(width=200)
    base_model = ensure_base_model(cache_folder(), console)
    problems = read_problems(ensure_rows(cache_folder(), console))
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, "train.jsonl"), Path(folder, "held-out.jsonl")]
        for file, part in zip(files, split_problems(problems, NUM_HELD_OUT), strict=True):
            file.write_text("".join(json.dumps(problem.as_row()) + "\n" for problem in part))
        print_radii(token_radii(base_model, files[0]), console)
        if options.steps:
            print_trainings(base_model, *files, options, console)


if __name__ == "__main__":
    main()

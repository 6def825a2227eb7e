"""What warm trials are worth: a search beside the same search with a worker group for each trial.

    make bench-search
    python tests/benchmarks/search.py --base-model PATH --rows-from mawps --batch-size 1

Runs on the CPU. Both searches draw the same trials (curvature, rank and learning rate at random, by
the same seed) and train each for the same steps on the same rows, on a Ray cluster of their own
with as many trials at a time as there are cores. They differ in one thing: warm trials follow one
another in processes that keep the base model and the rows; a nested trial starts a TorchTrainer
whose worker loads both, as Ray's guide has it. Each round runs one and then the other. The time is
that of the whole search, processes started and rows read included; what registers the winner and
writes the report is left out. Ratios are medians over the rounds.

The base model is by default the tests' own of 50 thousand parameters, so what is measured is the
price of a trial apart from its training; with a real model the training itself dominates.

The last line is `RESULT {json}`:

    trials_per_hour_vs_nested  warm trials an hour over nested ones
    warm_trial_start_s         from when a trial is given its warm process to its first step, median
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ray
from machine import machine, num_cores
from mlflow import MlflowClient
from training_rows import FILES, write_rows

from deploy.home import StackPorts
from deploy.local import LocalStack
from jobs.search import TUNE_VARIABLES, run_trials
from jobs.search_specs import SearchSpec
from jobs.tickets import TRIAL_START_SECONDS, JobTicket
from jobs.tuning.trial_runs import TrialRuns, state_of
from tests.tiny_model import write_addition_rows, write_tiny_model

PROJECT = Path(__file__).parents[2]


def spec_of(options: argparse.Namespace, name: str, base_model: Path, rows: Path) -> SearchSpec:
    """The search; both ways of running it get the same."""
    return SearchSpec.model_validate(
        {
            "kind": "search",
            "name": name,
            "base_model": str(base_model),
            "data": {"train": rows.as_uri(), "validation_rows": options.validation_rows},
            "training": {
                "max_steps": options.steps,
                "num_epochs": 10_000,
                "batch_size": options.batch_size,
                "dtype": "float32",
                "checkpoint_every_steps": None,
            },
            "resources": {"gpus_per_worker": 0},
            "space": {
                "adapter.curvature": {"loguniform": [0.1, 10]},
                "adapter.r": {"choice": [4, 8, 16, 32]},
                "training.learning_rate": {"loguniform": [1e-4, 1e-2]},
            },
            "algorithm": {"name": "random", "seed": options.seed},
            "budget": {"trials": options.trials},
            "max_concurrent_trials": options.concurrent,
        }
    )


def run_search(spec: SearchSpec, mlflow_url: str, folder: Path, is_nested: bool) -> dict[str, Any]:
    """Run one search and tell how long its trials took."""
    client = MlflowClient(tracking_uri=mlflow_url)
    run = client.create_run("0", run_name=spec.name)
    ticket = JobTicket(
        job_id=spec.name,
        attempt=1,
        run_id=run.info.run_id,
        tracking_uri=mlflow_url,
        storage_path=str(folder),
        spec=spec,
        files={},
    )
    runs = TrialRuns(ticket)
    began = time.perf_counter()
    run_trials(ticket, spec, runs, is_nested=is_nested)
    seconds = time.perf_counter() - began
    found = runs.all()
    states = [state_of(each).value for each in found]
    assert states == ["completed"] * spec.num_trials, states
    # The first trial in each process loads what the others find.
    starts = [each.data.metrics.get(TRIAL_START_SECONDS) for each in found]
    return {
        "seconds": seconds,
        "trials_per_hour": 3600 * spec.num_trials / seconds,
        "objectives": {
            each.info.run_name: each.data.metrics["objective/eval/loss"] for each in found
        },
        "starts": starts[spec.max_concurrent_trials :] if not is_nested else [],
    }


@contextmanager
def cluster(num_cpus: int) -> Iterator[None]:
    """A Ray cluster of this process, and what drivers find in their environment."""
    os.environ |= TUNE_VARIABLES
    context = ray.init(num_cpus=num_cpus, include_dashboard=False, log_to_driver=False)
    address = context.address_info["gcs_address"]
    os.environ["RAY_ADDRESS"] = address
    try:
        yield
    finally:
        ray.shutdown()
        del os.environ["RAY_ADDRESS"]


def main() -> None:
    options = options_of_command_line()
    found: dict[str, list[dict[str, Any]]] = {"warm": [], "nested": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base_model = options.base_model or write_tiny_model(folder / "model")
        rows = folder / "rows.jsonl"
        if options.rows_from == "sums":
            write_addition_rows(rows, num_rows=options.rows)
        else:
            write_rows(options.data, options.rows_from, options.rows, options.seed, rows)
        with LocalStack(folder / "home", StackPorts(0, 0, 0), [folder]) as stack:
            stack.start_mlflow()
            stack.await_ready("mlflow")
            with cluster(options.concurrent):
                for number in range(options.rounds):
                    for kind in found:
                        spec = spec_of(options, f"{kind}-{number}", base_model, rows)
                        measured = run_search(
                            spec, stack.mlflow_url, folder / "storage", kind == "nested"
                        )
                        found[kind].append(measured)
                        print(
                            f"round {number + 1}: {kind}, {measured['trials_per_hour']:.0f} trials "
                            f"an hour, {measured['seconds']:.0f} s",
                            flush=True,
                        )
    for warm, nested in zip(found["warm"], found["nested"], strict=True):
        for trial, objective in nested["objectives"].items():
            difference = abs(warm["objectives"][trial] - objective)
            assert difference < 1e-3 * objective, f"{trial} was not trained alike"
    ratios = [
        warm["trials_per_hour"] / nested["trials_per_hour"]
        for warm, nested in zip(found["warm"], found["nested"], strict=True)
    ]
    starts = [start for warm in found["warm"] for start in warm["starts"]]
    result = {
        "trials_per_hour_vs_nested": round(statistics.median(ratios), 2),
        "warm_trial_start_s": round(statistics.median(starts), 3),
    }
    if options.json:
        about = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": machine(),
            "base_model": Path(base_model).name,
            **{
                name: getattr(options, name)
                for name in ("trials", "steps", "batch_size", "rows", "rows_from", "concurrent")
            },
        }
        content = {**about, "searches": found, "result": result}
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    print(f"RESULT {json.dumps(result)}")


def options_of_command_line() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--base-model", type=Path, help="a folder, by default the tests' model")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--rows-from", default="sums", choices=["sums", *sorted(FILES)])
    parser.add_argument("--data", type=Path, default=PROJECT.parent / "shared/data")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--validation-rows", type=int, default=8)
    parser.add_argument("--concurrent", type=int, default=num_cores(), help="trials at a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write all figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()

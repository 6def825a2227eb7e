"""What the control plane answers in what time while a job trains, and whether it loses anything.

    make bench-service
    python tests/benchmarks/control_plane.py --database postgresql --json results.json

Starts the embedded stack (Ray, MLflow and the service, one job at a time on the cluster) and
fine-tunes a tiny model for as long as the first three parts take:

    burst       submissions, each with an idempotency key; of ten, one is sent twice at once and
                another again later. Open loop: they are due at random moments, `--per-second` of
                them in the mean, over 8 connections, and their times count from when they were due.
                Closed loop: 1, 8 and 32 clients that send their next as soon as they are answered.
                Afterwards the API's list, the database, the events and the audit log are asked:
                lost is what is not there exactly once with all its traces, doubled what is there
                besides.
    lists       many stored jobs of every kind, in three projects, with tags and metadata: first
                pages, pages deep inside, every filter; from one client, then from four
    followers   event streams of a few jobs: whether each gets every event once, in order and to the
                end, and what they cost meanwhile
    first step  seconds from a POST to the first optimizer step, beside `ray job submit` of the same
                driver; each round runs both, in turns first

The last line is `RESULT {json}`:

    burst_lost, burst_doubled   over all bursts
    post_p50_ms, post_p99_ms    of the open loop
    list_p99_ms                 of one client, over all kinds of lists
    first_step_vs_ray_job       ratio of the medians
"""

import argparse
import asyncio
import json
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from control_plane_burst import OPEN, measure_bursts
from control_plane_first_step import measure_first_steps
from control_plane_followers import measure_followers
from control_plane_lists import measure_lists
from control_plane_stack import running_stack, training
from machine import machine, num_cores

from tests.tiny_model import write_tiny_model

PROJECT = Path(__file__).parents[2]
RESULTS = Path(__file__).with_name("results")


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything, on one stack."""
    base_model = options.base_model or write_tiny_model(folder / "model")
    with running_stack(folder, base_model, options.database) as bench:
        with training(bench):
            bursts = asyncio.run(measure_bursts(bench, options.burst, options.per_second))
            lists = asyncio.run(measure_lists(bench, options.jobs, options.repeats))
            followers = asyncio.run(
                measure_followers(bench, options.followers, options.events, options.burst // 4)
            )
        first_steps = measure_first_steps(bench, options.rounds)
    return {
        "bursts": bursts,
        "lists": lists,
        "followers": followers,
        "first_steps": first_steps,
    }


def result_of(found: dict[str, Any]) -> dict[str, Any]:
    """The figures of the last line."""
    bursts = [*found["bursts"].values(), found["followers"]["posts_meanwhile"]]
    return {
        "burst_lost": sum(burst["lost"] for burst in bursts),
        "burst_doubled": sum(burst["doubled"] for burst in bursts),
        "post_p50_ms": found["bursts"][OPEN]["p50_ms"],
        "post_p99_ms": found["bursts"][OPEN]["p99_ms"],
        "list_p99_ms": found["lists"]["one client"]["p99_ms"],
        "first_step_vs_ray_job": found["first_steps"]["ratio"],
    }


def main() -> None:
    options = options_of_command_line()
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "cores": num_cores(),
        "versions": ", ".join(
            f"{name} {version(name)}" for name in ("fastapi", "uvicorn", "sqlalchemy", "ray")
        ),
        **{
            name: getattr(options, name)
            for name in ("database", "burst", "per_second", "jobs", "repeats", "followers")
        },
        "rounds": options.rounds,
    }
    print(", ".join(f"{name} {value}" for name, value in about.items()), flush=True)
    with tempfile.TemporaryDirectory(prefix="hyplora-bench-") as name:
        found = measure(options, Path(name))
    result = result_of(found)
    path = options.json
    if options.record:
        path = RESULTS / f"{about['date']}-control-plane-{options.database}-cpu.json"
    if path:
        path.write_text(json.dumps({**about, **found, "result": result}, indent=2) + "\n")
    print(f"RESULT {json.dumps(result)}")


def options_of_command_line() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--database", default="sqlite", choices=["sqlite", "postgresql"])
    parser.add_argument("--burst", type=int, default=400, help="submissions of each burst")
    parser.add_argument("--per-second", type=float, default=40.0, help="of the open loop")
    parser.add_argument("--jobs", type=int, default=10_000, help="stored while lists are read")
    parser.add_argument("--repeats", type=int, default=20, help="of each list")
    parser.add_argument("--followers", type=int, default=200)
    parser.add_argument("--events", type=int, default=20, help="of each job that is followed")
    parser.add_argument("--rounds", type=int, default=3, help="first steps in both ways")
    parser.add_argument("--base-model", type=Path, help="a folder, by default the tests' model")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    parser.add_argument(
        "--record", action="store_true", help="write them to results/, dated, instead"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()

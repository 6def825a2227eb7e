"""Jobs of the demos: rows are uploaded, a specification is submitted, and the job followed."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from deploy.demo_rows import WordProblem
from service.answers import JobRead
from service.cli.follow import follow_job
from service.client import Client

MODEL_NAME = "asdiv-demo"
"""Registered model of the demos."""

ALIAS = "champion"
"""Alias of its newest version."""

MAX_NEW_TOKENS = 24
"""Room for one equation."""

TWO_CORES = {"cpus_per_worker": 2}
"""Resources of a job on a small machine."""


class DemoError(Exception):
    """The demo cannot show what it is there to show."""


def upload_problems(
    client: Client, problems: Sequence[WordProblem], filename: str, console: Console
) -> str:
    """Upload word problems, with their answers beside their equations, and return the file's id."""
    with tempfile.TemporaryFile() as rows:
        for problem in problems:
            row = problem.as_row() | {"answer": f"{problem.answer:g}"}
            rows.write(json.dumps(row).encode() + b"\n")
        rows.seek(0)
        file = client.upload_file(rows, filename)
    console.print(f"uploaded {file.num_rows} rows as {file.id}")
    return file.id


def finetune_spec(base_model: Path, file_id: str, num_steps: int) -> dict[str, Any]:
    """A HypLoRA fine-tune on uploaded problems."""
    return {
        "kind": "finetune",
        "name": MODEL_NAME,
        "base_model": str(base_model),
        "adapter": {"method": "hyplora", "r": 8, "alpha": 16, "curvature": 1.0},
        "data": {"train": file_id, "validation_rows": 40},
        "training": short_training(num_steps) | {"learning_rate": 1e-3},
        "resources": TWO_CORES,
        "registry": {"alias": ALIAS},
    }


def short_training(num_steps: int) -> dict[str, Any]:
    """Optimisation settings of a training of few small steps, but for its learning rate."""
    return {"max_steps": num_steps, "batch_size": 4, "warmup_steps": min(10, num_steps)}


def run_job(client: Client, spec: Mapping[str, Any], console: Console) -> JobRead:
    """Submit a job by one REST call and follow it to its end.

    Raises:
        DemoError: If it did not succeed.
    """
    submitted = client.submit_job(spec)
    console.print(f"submitted {submitted.id}, {submitted.kind}")
    job = follow_job(client, submitted.id, console)
    if job.status != "succeeded":
        reason = job.failure.message if job.failure else "no reason was recorded"
        raise DemoError(f"the job {job.status}: {reason}")
    return job

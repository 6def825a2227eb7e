"""The embedded stack as the control plane's benchmark runs it, and one training on it."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from deploy.home import StackPorts
from deploy.local import LocalStack
from service.answers import JobRead
from service.client import Client
from service.settings import ServiceSettings
from tests.postgres import PostgresServer
from tests.tiny_model import write_addition_rows

_START_TIMEOUT_S = 300
_UNLIMITED = "1000000000"


@dataclass(frozen=True)
class Bench:
    """A running stack, and what the parts of the benchmark ask of it."""

    stack: LocalStack
    client: Client
    database_url: str
    base_model: Path
    file_id: str

    @property
    def url(self) -> str:
        """Where jobs are submitted and listed."""
        return f"{self.stack.api_url}/v1/jobs"

    @property
    def headers(self) -> Mapping[str, str]:
        """What every request needs."""
        return {"Authorization": f"Bearer {self.stack.token}"}

    def spec(self, name: str, max_steps: int = 1, **fields: Any) -> dict[str, Any]:
        """A fine-tune of the base model."""
        return {
            "kind": "finetune",
            "name": name,
            "base_model": str(self.base_model),
            "adapter": {"r": 4, "alpha": 8},
            "data": {"train": self.file_id, "validation_rows": 8},
            "training": {
                "max_steps": max_steps,
                "num_epochs": 1_000_000,
                "batch_size": 4,
                "checkpoint_every_steps": None,
            },
            "resources": {"gpus_per_worker": 0},
            **fields,
        }

    def service_process(self) -> psutil.Process:
        """The process that serves the API."""
        return psutil.Process(self.stack.children["service"].pid)


@contextmanager
def running_stack(folder: Path, base_model: Path, database: str) -> Iterator[Bench]:
    """Start Ray, MLflow and the service, which puts one job at a time on the cluster.

    Args:
        folder: Empty, for all state.
        base_model: What is trained.
        database: `sqlite` or `postgresql`.
    """
    server = PostgresServer(fsync="on") if database == "postgresql" else nullcontext()
    with server as postgres:
        url = postgres.create_database() if postgres else None
        # What is measured is the service, not how it holds one client back.
        os.environ["HYPLORA_REQUESTS_PER_MINUTE"] = _UNLIMITED
        os.environ["HYPLORA_REQUESTS_BURST"] = _UNLIMITED
        os.environ["HYPLORA_MAX_LIVE_DRIVERS"] = "1"
        if url:
            os.environ["HYPLORA_DATABASE_URL"] = url
        with LocalStack(folder / "home", StackPorts(0, 0, 0), [base_model]) as stack:
            stack.start(lambda line: print(line, flush=True))
            with Client(stack.api_url, stack.token, timeout_s=120) as client:
                rows = write_addition_rows(folder / "rows.jsonl", num_rows=64)
                with rows.open("rb") as file:
                    file_id = client.upload_file(file, rows.name).id
                settings = ServiceSettings(home=stack.home)
                yield Bench(stack, client, settings.database_url, base_model, file_id)


@contextmanager
def training(bench: Bench) -> Iterator[JobRead]:
    """A fine-tune that has done its first steps and goes on until the context ends."""
    job = bench.client.submit_job(bench.spec("training", max_steps=100_000_000))
    try:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while (job.progress is None or not job.progress.step) and not job.terminal:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{job.id} did no step within {_START_TIMEOUT_S} s")
            time.sleep(0.5)
            job = bench.client.get_job(job.id)
        if job.terminal:
            raise RuntimeError(f"the training ended: {json.dumps(job.model_dump(mode='json'))}")
        yield job
        if (job := bench.client.get_job(job.id)).terminal:
            raise RuntimeError(f"the training ended too early: {job.failure}")
    finally:
        bench.client.cancel_job(job.id)
        for _ in bench.client.follow_events(job.id):
            pass

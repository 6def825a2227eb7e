"""One embedded stack for the whole test run: real Ray, MLflow and HTTP."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from deploy.home import StackPorts
from deploy.local import LocalStack
from service.answers import FileRead, JobRead
from service.client import Client

TERMINAL_TIMEOUT_S = 300


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    folders = [tmp_path_factory.getbasetemp(), Path("/no/such")]
    with LocalStack(tmp_path_factory.mktemp("home"), StackPorts(0, 0, 0), folders) as stack:
        with pytest.MonkeyPatch.context() as environment:
            # Workers keep base models from MLflow there; the user's own cache stays untouched.
            environment.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
            stack.start()
        yield stack


@pytest.fixture(scope="session")
def client(stack: LocalStack) -> Iterator[Client]:
    with Client(stack.api_url, stack.token) as client:
        yield client


@pytest.fixture(scope="session")
def sums(client: Client) -> FileRead:
    """Sixty sums that the tiny model can learn."""
    rows = [
        {"instruction": "add", "input": f"{a} {b}", "output": str(a + b)}
        for a in range(10)
        for b in range(6)
    ]
    return upload(client, rows)


def upload(client: Client, rows: list[dict[str, str]]) -> FileRead:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    return client.upload_file(io.BytesIO(lines.encode()), "rows.jsonl")


@pytest.fixture(scope="session")
def make_spec(tiny_model_dir: Path, sums: FileRead) -> Callable[..., dict[str, Any]]:
    """A small fine-tune of the tiny model; sections given are merged into it."""

    def make(name: str, **sections: Any) -> dict[str, Any]:
        spec: dict[str, Any] = {
            "kind": "finetune",
            "name": name,
            "base_model": str(tiny_model_dir),
            "adapter": {"r": 4, "alpha": 8},
            "data": {"train": sums.id, "validation_rows": 8},
            "training": {
                "max_steps": 12,
                "num_epochs": 100,
                "batch_size": 4,
                "learning_rate": 1e-2,
                "checkpoint_every_steps": 5,
            },
        }
        for section, values in sections.items():
            known = spec.get(section)
            spec[section] = {**known, **values} if isinstance(known, dict) else values
        return spec

    return make


def wait_for_progress(client: Client, job_id: str, step: int = 1) -> None:
    """Follow a job until it has done some steps."""
    for event in client.follow_events(job_id):
        if event.type == "progress" and (event.data.get("step") or 0) >= step:
            return
    raise AssertionError(f"{job_id} ended before step {step}: {client.get_job(job_id).failure}")


def wait_for_status(client: Client, job_id: str, status: str) -> JobRead:
    """Follow a job until it has come to a state."""
    for event in client.follow_events(job_id):
        if event.type == "status" and event.data["status"] == status:
            return client.get_job(job_id)
    raise AssertionError(f"{job_id} ended and was never {status}: {client.get_job(job_id)}")


def curve_of(
    stack: LocalStack, job: JobRead, metric: str = "train/loss"
) -> list[tuple[int, float]]:
    """Every value of a metric that MLflow has, in the order of its arrival."""
    assert job.links.mlflow_run is not None
    run_id = job.links.mlflow_run.rpartition("/")[2]
    history = MlflowClient(tracking_uri=stack.mlflow_url).get_metric_history(run_id, "train/loss")
    return [(point.step, point.value) for point in history]


@pytest.fixture(scope="session")
def run_to_end(client: Client) -> Callable[[dict[str, Any]], JobRead]:
    """Submit a spec and follow its events until the job is over."""

    def run(spec: dict[str, Any]) -> JobRead:
        job = client.submit_job(spec)
        for _ in client.follow_events(job.id):
            pass
        return client.get_job(job.id)

    return run

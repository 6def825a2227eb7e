"""A comparison as its driver carries it out, on real Ray and MLflow."""

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from deploy.local import LocalStack
from jobs.compare_report.report import CompareReport
from jobs.compare_specs import CompareSpec
from jobs.tickets import TICKET_VARIABLE, JobTicket, RunTag
from tests.tiny_model import write_addition_rows
from workers.reach import Reach

pytestmark = [pytest.mark.integration, pytest.mark.slow]

WILD = {"name": "wild", "adapter": {"method": "lora", "r": 4}, "learning_rates": [1e30, 1e32]}
"""A method that no training of survives."""


@pytest.fixture(scope="module")
def make_ticket(
    stack: LocalStack, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """Tickets of comparisons of the tiny model, each with a run of its own."""
    folder = tmp_path_factory.mktemp("comparison")
    train = write_addition_rows(folder / "train.jsonl", num_rows=40)
    test = write_addition_rows(folder / "test.jsonl", num_rows=6, first=60)

    def make(name: str, **changes: Any) -> JobTicket:
        spec: dict[str, Any] = {
            "kind": "compare",
            "name": name,
            "base_model": str(tiny_model_dir),
            "methods": ["base", "lora", "hyplora", WILD],
            "adapter": {"r": 4, "alpha": 8},
            "data": {"train": train.as_uri(), "validation_rows": 8, "leakage": "fail"},
            "training": {
                "max_steps": 12,
                "num_epochs": 9,
                "batch_size": 4,
                "checkpoint_every_steps": 2,
            },
            "learning_rates": [1e-3, 1e-2],
            "seeds": [0, 1],
            "max_new_tokens": 8,
            "tasks": [{"name": "sums", "scorer": {"kind": "exact"}, "data": test.as_uri()}],
        }
        run = MlflowClient(tracking_uri=stack.mlflow_url).create_run("0", run_name=name)
        return JobTicket(
            job_id=name,
            attempt=1,
            run_id=run.info.run_id,
            tracking_uri=stack.mlflow_url,
            storage_path=str(folder / "storage"),
            spec=CompareSpec.model_validate(spec | changes),
            reach=Reach(folders=(str(folder), spec["base_model"])),
            files={},
        )

    return make


def start(stack: LocalStack, ticket: JobTicket) -> subprocess.Popen[str]:
    """Start a driver as the control plane does; what is started follows it and shows its log."""
    environment = {"env_vars": {TICKET_VARIABLE: ticket.model_dump_json()}}
    command = ["ray", "job", "submit", "--address", stack.ray_dashboard_url]
    command += ["--runtime-env-json", json.dumps(environment), "--"]
    command += [shlex.quote(sys.executable), "-m", "jobs.compare"]
    return subprocess.Popen(
        command,
        env=stack.client_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def drive(stack: LocalStack, ticket: JobTicket) -> str:
    """Run a driver to its end; returns its log."""
    with start(stack, ticket) as follower:
        return follower.communicate()[0]


def driver_of(ticket: JobTicket) -> psutil.Process:
    """The process of a ticket's driver."""
    (driver,) = [
        process
        for process in psutil.process_iter(["cmdline"])
        if (process.info["cmdline"] or [])[1:] == ["-m", "jobs.compare"]
        and ticket.run_id in process.environ().get(TICKET_VARIABLE, "")
    ]
    return driver


def trainings_of(client: MlflowClient, ticket: JobTicket) -> dict[str, Run]:
    """The runs of the trainings by their names."""
    runs = client.search_runs(["0"], f"tags.mlflow.parentRunId = '{ticket.run_id}'")
    by_name = {run.data.tags[RunTag.TRAINING]: run for run in runs}
    assert len(by_name) == len(runs), "no training has two runs"
    return by_name


def tags_of(client: MlflowClient, ticket: JobTicket) -> list[dict[str, str]]:
    return [run.data.tags for run in trainings_of(client, ticket).values()]


def report_of(client: MlflowClient, ticket: JobTicket, tmp_path: Path) -> CompareReport:
    path = client.download_artifacts(ticket.run_id, "compare/report.json", str(tmp_path))
    return CompareReport.model_validate_json(Path(path).read_text())


def test_a_comparison_goes_on_after_a_stop_reports_and_trains_nothing_twice(
    stack: LocalStack, make_ticket: Any, tmp_path: Path
) -> None:
    client = MlflowClient(tracking_uri=stack.mlflow_url)
    ticket = make_ticket("fair")

    with start(stack, ticket) as follower:
        while not any(RunTag.TRAINING_RECORD in tags for tags in tags_of(client, ticket)):
            assert follower.poll() is None, follower.communicate()[0]
            time.sleep(0.1)
        driver_of(ticket).send_signal(signal.SIGTERM)
        stopped = follower.communicate()[0]
    before = trainings_of(client, ticket)
    assert "INFO jobs.entrypoint stopped after" in stopped
    assert client.get_run(ticket.run_id).info.status == "RUNNING"

    log = drive(stack, ticket.model_copy(update={"attempt": 2}))

    run = client.get_run(ticket.run_id)
    assert run.info.status == "FINISHED", log
    trainings = trainings_of(client, ticket)
    # Two rates with the first seed, the better one with the second, of each method that can be.
    assert len(trainings) == 2 * (2 + 1) + 2
    assert {run.info.status for name, run in trainings.items() if "wild" in name} == {"FAILED"}
    done = {name for name, run in before.items() if RunTag.TRAINING_RECORD in run.data.tags}
    assert {name: trainings[name].info.end_time for name in done} == {
        name: before[name].info.end_time for name in done
    }, "what was on record is not trained again"
    report = report_of(client, ticket, tmp_path)
    assert [method.method for method in report.methods] == ["base", "lora", "hyplora"]
    assert "loss-not-finite" in report.missing["wild"]
    assert report.methods[1].seeds == (0, 1)
    assert [len(method.rates_tried) for method in report.methods] == [0, 2, 2]
    assert all(method.nlls for method in report.methods)
    assert report.methods[2].average_nll is not None
    assert run.data.metrics["compare/hyplora/sums/nll"] == report.methods[2].average_nll.value
    assert run.data.metrics["compare/lora/sums/accuracy"] == report.methods[1].average_score.value
    assert "hyplora: no difference shown from lora on sums" in run.data.tags[RunTag.SUMMARY]
    assert run.data.metrics["progress/step"] == run.data.metrics["progress/total_steps"] == 9 + 7
    artifacts = {file.path for file in client.list_artifacts(ticket.run_id, "compare")}
    assert {"compare/report.md", "compare/scores.png", "compare/predictions.parquet"} <= artifacts
    left = [path.name for path in Path(ticket.storage_path).iterdir() if "lr" in path.name]
    assert not left, "checkpoints are removed once there is a result"

    again = drive(stack, ticket.model_copy(update={"attempt": 3}))

    assert "begins" in log
    assert "begins" not in again
    assert "succeeded" in again
    assert trainings_of(client, ticket).keys() == trainings.keys()
    assert report_of(client, ticket, tmp_path) == report

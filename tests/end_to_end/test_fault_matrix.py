"""Each part of the stack killed while jobs are in every stage: all end in their true state, once.

One outage meets six jobs, one in each stage, so that a row of the matrix costs one outage.
"""

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from jobs.tickets import RunTag
from service.answers import EventRead, JobRead
from service.client import Client
from tests.fault_stack import FaultStack, until
from tests.tiny_model import write_addition_rows
from workers.specs import RunMetric

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(3600)]

ENDLESS = 1_000_000
NUM_STEPS = {
    "training": 2500,
    "cancelling": ENDLESS,
    "pausing": ENDLESS,
    "finishing": 500,
    "submitted": 3,
    "queued": 3,
}
"""The stages, in the order in which their jobs are submitted."""

AT_ONCE = 5
"""All but the queued one; each takes one of Ray's CPUs, so no outage may leave one taken."""

TRUE_END = dict.fromkeys(NUM_STEPS, "succeeded") | {"cancelling": "cancelled", "pausing": "paused"}
RUN_STATUS = {"succeeded": "FINISHED", "cancelled": "KILLED", "paused": "SCHEDULED"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultStack]:
    settings = {"MAX_LIVE_DRIVERS": str(AT_ONCE), "POLL_INTERVAL_S": "0.5", "LEASE_TTL_S": "3"}
    home, folders = tmp_path_factory.mktemp("faults"), [tmp_path_factory.getbasetemp()]
    with FaultStack(home, AT_ONCE, folders, **settings) as stack:
        stack.start()
        yield stack


@pytest.fixture(scope="module")
def client(stack: FaultStack) -> Iterator[Client]:
    with Client(stack.api_url, stack.token) as client:
        yield client


@pytest.fixture(scope="module")
def make_spec(
    client: Client, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, int], dict[str, Any]]:
    rows = write_addition_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl").read_bytes()
    train = client.upload_file(BytesIO(rows), "rows.jsonl").id

    def make(name: str, num_steps: int) -> dict[str, Any]:
        return {
            "kind": "finetune",
            "name": name,
            "base_model": str(tiny_model_dir),
            "adapter": {"r": 4, "alpha": 8},
            "data": {"train": train},
            "training": {
                "max_steps": num_steps,
                "num_epochs": ENDLESS,
                "batch_size": 2,
                "checkpoint_every_steps": 200,
            },
        }

    return make


class Follower:
    """Reads a job's events as a user does, through everything that happens."""

    def __init__(self, stack: FaultStack, job_id: str) -> None:
        self.events: list[EventRead] = []
        self.interruptions: list[Exception] = []
        self._client = Client(stack.api_url, stack.token)
        self._thread = threading.Thread(target=self._follow, args=(job_id,), daemon=True)
        self._thread.start()

    def _follow(self, job_id: str) -> None:
        with self._client:
            stream = self._client.follow_events(
                job_id, patience_s=600, on_interruption=self.interruptions.append
            )
            self.events.extend(stream)

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()


def submit_one_for_each_stage(
    stack: FaultStack, client: Client, make_spec: Callable[[str, int], dict[str, Any]], victim: str
) -> dict[str, str]:
    """Submit a job for each stage, and return their ids once all have come there."""
    jobs: dict[str, str] = {}
    for stage, num_steps in NUM_STEPS.items():
        if stage == "submitted":
            until(lambda: step_of(stack, jobs["finishing"]) > 50, "the finishing job's steps")
        jobs[stage] = client.submit_job(make_spec(f"{victim}-{stage}", num_steps)).id
    until(lambda: step_of(stack, jobs["training"]) >= 2, "the training job's steps")
    until(lambda: step_of(stack, jobs["finishing"]) == NUM_STEPS["finishing"], "the last step")
    client.cancel_job(jobs["cancelling"])
    client.pause_job(jobs["pausing"])
    return jobs


def run_of(stack: FaultStack, job_id: str) -> Any:
    """The one run of a job; None before there is one."""
    mlflow = MlflowClient(tracking_uri=stack.mlflow_url)
    experiment = mlflow.get_experiment_by_name("hyplora")
    if experiment is None:
        return None
    query = f"tags.`{RunTag.JOB_ID}` = '{job_id}'"
    runs = mlflow.search_runs([experiment.experiment_id], filter_string=query)
    assert len(runs) <= 1
    return runs[0] if runs else None


def step_of(stack: FaultStack, job_id: str) -> int:
    run = run_of(stack, job_id)
    return int(run.data.metrics.get(RunMetric.STEP, 0)) if run else 0


def records(client: Client, jobs: Mapping[str, str]) -> dict[str, JobRead]:
    """The jobs by stage."""
    found = {job.id: job for job in client.list_jobs(limit=200).data}
    return {stage: found[job_id] for stage, job_id in jobs.items()}


def have_ended(client: Client, jobs: Mapping[str, str]) -> bool:
    found = records(client, jobs)
    return all(job.terminal or job.status == "paused" for job in found.values())


def is_noticed(client: Client, victim: str) -> bool:
    return not client.ready().checks["database" if victim == "postgres" else victim].ok


def assert_true_end(stack: FaultStack, stage: str, job: JobRead) -> None:
    """The job and its run tell the same, and nothing is there twice or missing."""
    mlflow = MlflowClient(tracking_uri=stack.mlflow_url)
    assert job.status == TRUE_END[stage], (stage, job.failure)
    run = run_of(stack, job.id)
    assert run.info.status == RUN_STATUS[job.status]
    history = mlflow.get_metric_history(run.info.run_id, RunMetric.LOSS)
    steps = [point.step for point in history]
    assert steps == list(range(1, len(steps) + 1))
    versions = mlflow.search_model_versions(f"name = '{job.name}'")
    if job.status == "succeeded":
        assert len(steps) == NUM_STEPS[stage]
        assert [version.version for version in versions] == ["1"]
    else:
        assert not versions


@pytest.mark.parametrize("victim", ["service", "postgres", "mlflow", "ray"])
def test_every_job_ends_in_its_true_state_when_a_part_is_killed(
    victim: str,
    stack: FaultStack,
    client: Client,
    make_spec: Callable[[str, int], dict[str, Any]],
) -> None:
    jobs = submit_one_for_each_stage(stack, client, make_spec, victim)
    follower = Follower(stack, jobs["training"])
    before = records(client, jobs)

    stack.kill(victim)
    if victim != "service":
        until(lambda: is_noticed(client, victim), "the service to notice")
    stack.start_again(victim)
    until(lambda: have_ended(client, jobs), "the end of all jobs")

    after = records(client, jobs)
    for stage, job in after.items():
        step = before[stage].progress.step if before[stage].progress else None
        was = f"{victim}: {stage} was {before[stage].status} at step {step}"
        sys.stdout.write(f"{was}, is {job.status} in attempt {job.attempt}\n")
        assert_true_end(stack, stage, job)
    assert [job.attempt for job in after.values() if victim in {"service", "postgres"}] in (
        [],
        [1] * len(jobs),
    )
    follower.join()
    stored = client.list_events(jobs["training"], limit=1000).data
    assert [event.id for event in follower.events] == [event.id for event in stored]
    assert bool(follower.interruptions) == (victim == "service")
    until(lambda: not stack.drivers(), "the end of all drivers")
    assert all(driver["end_time"] for driver in stack.ray_jobs())

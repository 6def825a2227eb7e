"""Several replicas on one PostgreSQL and one Ray: killed, suspended and let go on.

Drivers are real processes that Ray starts; they record a failure in MLflow at once, so that many
fit into a minute.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient

from jobs.tickets import TICKET_VARIABLE, RunTag
from service.client import Client
from service.settings import ServiceSettings
from tests.fault_stack import FaultStack, Replica, command_of, until

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]

ROWS = b'{"instruction": "Add 2 and 3.", "output": "5"}\n'
MAX_LIVE = 3

DRIVER = """#!{python} -S
import json, os, time, urllib.request
ticket = json.loads(os.environ["{variable}"])
def tag(key, value):
    body = json.dumps(dict(run_id=ticket["run_id"], key=key, value=value)).encode()
    url = ticket["tracking_uri"] + "/api/2.0/mlflow/runs/set-tag"
    headers = dict([("Content-Type", "application/json")])
    urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60)
time.sleep(0.5)
tag("{message}", "as the test wants it")
tag("{code}", "data-invalid")
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultStack]:
    home = tmp_path_factory.mktemp("replicas")
    driver = home / "driver"
    driver.write_text(
        DRIVER.format(
            python=sys.executable,
            variable=TICKET_VARIABLE,
            message=RunTag.FAILURE_MESSAGE,
            code=RunTag.FAILURE_CODE,
        )
    )
    driver.chmod(0o700)
    settings = {
        "DRIVER_PYTHON": str(driver),
        "MAX_LIVE_DRIVERS": str(MAX_LIVE),
        "POLL_INTERVAL_S": "0.1",
        "REQUESTS_PER_MINUTE": "100000",
    }
    with FaultStack(home, 2, **settings) as stack:
        stack.start_parts()
        yield stack


@contextmanager
def replicas(stack: FaultStack, number: int, **settings: str) -> Iterator[list[Replica]]:
    started = [stack.add_replica(**settings) for _ in range(number)]
    try:
        yield started
    finally:
        for replica in started:
            replica.stop()
            stack.replicas.remove(replica)
        stack.query("DELETE FROM leases")


def lease(stack: FaultStack) -> tuple[str, datetime] | None:
    """Who leads and until when."""
    answer = stack.query("SELECT holder, extract(epoch FROM expires_at) FROM leases")
    if not answer:
        return None
    holder, expires_at = answer.split("|")
    return holder, datetime.fromtimestamp(float(expires_at), UTC)


def leader_of(replicas: list[Replica]) -> Replica:
    """The replica that was the last to say that it leads."""
    until(lambda: any("this replica leads" in replica.log() for replica in replicas), "a leader")
    said = {replica: last_said(replica) for replica in replicas}
    return max(said, key=lambda replica: said[replica])


def last_said(replica: Replica) -> str:
    lines = [line for line in replica.log().splitlines() if line.endswith("this replica leads")]
    return lines[-1] if lines else ""


def submit(client: Client, number: int) -> list[str]:
    train = client.upload_file(BytesIO(ROWS), "rows.jsonl").id
    spec = {"kind": "finetune", "name": "burst", "base_model": "tiny", "data": {"train": train}}
    return [client.submit_job(spec).id for _ in range(number)]


def assert_each_ran_once(stack: FaultStack, client: Client, jobs: list[str]) -> None:
    submissions = [each for each in stack.ray_jobs() if each["metadata"]["job_id"] in jobs]
    ids = [each["submission_id"] for each in submissions]
    assert sorted(ids) == sorted(f"{job_id}-a1" for job_id in jobs)
    assert most_at_once(submissions) <= MAX_LIVE
    mlflow = MlflowClient(tracking_uri=stack.mlflow_url)
    experiment = mlflow.get_experiment_by_name("hyplora")
    runs = mlflow.search_runs([experiment.experiment_id])
    tagged = [run.data.tags[RunTag.JOB_ID] for run in runs]
    for job_id in jobs:
        events = client.list_events(job_id, limit=1000).data
        statuses = [event.data["status"] for event in events if event.type == "status"]
        assert statuses == ["queued", "running", "failed"]
        assert tagged.count(job_id) == 1


def most_at_once(submissions: list[dict[str, Any]]) -> int:
    """The largest number of drivers that Ray had at a time, by its own clock."""
    begun = [(each["start_time"], 1) for each in submissions]
    ended = [(each["end_time"], -1) for each in submissions]
    live = most = 0
    for _, change in sorted(begun + ended):
        live += change
        most = max(most, live)
    return most


def num_ended(client: Client, jobs: list[str]) -> int:
    return sum(job.terminal for job in client.list_jobs(limit=200).data if job.id in jobs)


def test_a_killed_leader_is_replaced_in_time_and_no_job_runs_twice(stack: FaultStack) -> None:
    ttl = timedelta(seconds=ServiceSettings(home=stack.home).lease_ttl_s)
    with replicas(stack, 3) as started:
        leader = leader_of(started)
        others = [replica for replica in started if replica is not leader]
        client = others[0].client
        jobs = submit(client, 24)
        until(lambda: num_ended(client, jobs) >= 1, "the first job")

        leader.process.kill()
        killed_at = datetime.now(UTC)
        before = lease(stack)
        assert before is not None
        until(lambda: lease(stack)[0] != before[0], "another leader")  # type: ignore[index]
        after = lease(stack)
        assert after is not None
        taken_over_at = after[1] - ttl
        until(lambda: num_ended(client, jobs) == len(jobs), "the end of all jobs")

        seconds = (taken_over_at - killed_at).total_seconds()
        sys.stdout.write(f"taken over after {seconds:.1f} s\n")
        assert before[1] <= killed_at + ttl
        # Who stands by asks three times within the time to live.
        assert ttl + ttl / 3 <= timedelta(seconds=15)
        assert taken_over_at >= before[1]
        assert_each_ran_once(stack, client, jobs)
        assert leader_of(others) is not leader


def test_leaders_that_are_suspended_and_go_on_later_do_nothing_twice(stack: FaultStack) -> None:
    with replicas(stack, 2, LEASE_TTL_S="3") as started:
        leader_of(started)
        jobs = submit(started[0].client, 12)
        for _ in range(3):
            said = {replica: last_said(replica) for replica in started}
            other, leader = sorted(started, key=lambda replica: said[replica])
            before = said[other]
            ended = num_ended(other.client, jobs)
            suspended = psutil.Process(leader.pid)
            suspended.suspend()
            until(lambda: last_said(other) != before, "another leader")  # noqa: B023
            until(lambda: num_ended(other.client, jobs) > ended or ended == len(jobs), "its work")  # noqa: B023
            suspended.resume()
        client = started[0].client
        until(lambda: num_ended(client, jobs) == len(jobs), "the end of all jobs")

        assert_each_ran_once(stack, client, jobs)
        assert all("Traceback" not in replica.log() for replica in started)
        assert all("stands by" in replica.log() for replica in started)


def test_ray_ends_a_driver_that_is_stopped_right_after_its_submission(stack: FaultStack) -> None:
    start_driver(stack, "late-a1", "sleep 611")

    stack.ask_ray("POST", "late-a1/stop")

    assert end_of(stack, "late-a1") == "STOPPED"
    until(lambda: not processes(stack, "sleep 611"), "the end of the driver")


def test_ray_does_not_count_a_driver_as_running_whose_supervisor_was_killed(
    stack: FaultStack,
) -> None:
    start_driver(stack, "orphan-a1", "sleep 612")
    until(lambda: processes(stack, "sleep 612"), "the driver")

    for process in processes(stack, "ray::JobSupervisor"):
        process.kill()

    assert end_of(stack, "orphan-a1") == "FAILED"
    until(lambda: not processes(stack, "sleep 612"), "the end of the driver")


def start_driver(stack: FaultStack, submission_id: str, command: str) -> None:
    metadata = {"job_id": submission_id}
    body = {"submission_id": submission_id, "entrypoint": command, "metadata": metadata}
    stack.ask_ray("POST", "", body)


def end_of(stack: FaultStack, submission_id: str) -> str:
    def is_over() -> bool:
        return stack.ask_ray("GET", submission_id)["status"] not in {"PENDING", "RUNNING"}

    until(is_over, "the end of the driver")
    return str(stack.ask_ray("GET", submission_id)["status"])


def processes(stack: FaultStack, command: str) -> list[psutil.Process]:
    """Processes under the Ray head by the beginning of their command."""
    found = psutil.Process(stack.children["ray"].pid).children(recursive=True)
    return [each for each in found if " ".join(command_of(each)).startswith(command)]

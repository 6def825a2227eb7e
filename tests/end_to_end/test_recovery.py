"""What is killed in mid-job comes back, and what is cancelled ends."""

import signal
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient

from deploy.local import LocalStack
from service.client import Client
from tests.end_to_end.conftest import wait_for_progress

pytestmark = pytest.mark.integration


def test_killing_the_service_in_mid_job_leaves_the_job_finished_and_recorded(
    stack: LocalStack, client: Client, make_spec: Callable[..., dict[str, Any]]
) -> None:
    job = client.submit_job(make_spec("survivor", training={"max_steps": 400}))
    wait_for_progress(client, job.id)
    stack.children["service"].kill()
    stack.start_service()
    stack.await_ready("service")
    events = list(client.follow_events(job.id))
    job = client.get_job(job.id)
    assert (job.status, job.attempt) == ("succeeded", 1), job.failure
    assert job.model_version is not None
    assert [event.data["status"] for event in events if event.type == "status"] == [
        "queued",
        "running",
        "succeeded",
    ]


@pytest.mark.slow
def test_a_killed_driver_is_followed_by_another_that_resumes(
    stack: LocalStack, client: Client, make_spec: Callable[..., dict[str, Any]]
) -> None:
    job = client.submit_job(make_spec("second-life", training={"max_steps": 400}))
    wait_for_progress(client, job.id, step=20)
    driver_of(stack).send_signal(signal.SIGKILL)
    for _ in client.follow_events(job.id):
        pass
    job = client.get_job(job.id)
    assert (job.status, job.attempt) == ("succeeded", 2), job.failure
    mlflow_client = MlflowClient(tracking_uri=stack.mlflow_url)
    assert job.model_version is not None
    version = mlflow_client.get_model_version("second-life", job.model_version.version)
    history = mlflow_client.get_metric_history(str(version.run_id), "train/loss")
    assert [point.step for point in history] == list(range(1, 401))


def test_a_cancelled_job_ends_and_gives_its_resources_back(
    stack: LocalStack, client: Client, make_spec: Callable[..., dict[str, Any]]
) -> None:
    job = client.submit_job(make_spec("endless", training={"max_steps": 1_000_000}))
    wait_for_progress(client, job.id)
    driver = driver_of(stack)
    client.cancel_job(job.id)
    for _ in client.follow_events(job.id):
        pass
    job = client.get_job(job.id)
    assert (job.status, job.model_version) == ("cancelled", None)
    driver.wait(60)
    quick = client.submit_job(make_spec("after-it", training={"max_steps": 1}))
    for _ in client.follow_events(quick.id):
        pass
    assert client.get_job(quick.id).status == "succeeded"


def driver_of(stack: LocalStack) -> psutil.Process:
    """The one driver process under the stack's Ray head."""
    ray_processes = psutil.Process(stack.children["ray"].pid).children(recursive=True)
    drivers = [process for process in ray_processes if is_driver(process)]
    assert len(drivers) == 1
    return drivers[0]


def is_driver(process: psutil.Process) -> bool:
    try:
        command = process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False
    return command[-2:] == ["-m", "jobs.finetune"] and "python" in command[0]

"""Several workers train as one does, through the loss of one of them."""

import re
import signal
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from deploy.local import LocalStack
from service.answers import JobRead
from service.client import Client
from tests.end_to_end.conftest import curve_of, wait_for_progress, wait_for_status

pytestmark = pytest.mark.integration

TRAINING = {
    "max_steps": 400,
    "num_epochs": 1000,
    "batch_size": 8,
    "checkpoint_every_steps": 10,
}


@pytest.mark.slow
def test_a_killed_worker_costs_no_more_than_an_interval_and_leaves_no_trace_in_the_curve(
    stack: LocalStack,
    client: Client,
    make_spec: Callable[..., dict[str, Any]],
    run_to_end: Callable[[dict[str, Any]], JobRead],
) -> None:
    two = {"training": TRAINING, "resources": {"num_workers": 2}}
    job = client.submit_job(make_spec("bereaved", **two))
    wait_for_progress(client, job.id, step=25)
    victim = workers_of(stack)[1]
    victim.send_signal(signal.SIGKILL)
    job = wait_for_status(client, job.id, "succeeded")
    assert job.attempt == 1, "Ray Train restarts its workers; the driver stays"
    log = "".join(client.logs(job.id))
    told = [event.data.get("text", "") for event in client.follow_events(job.id)]
    assert any(re.match("worker [01] failed: .", text) for text in told)
    resumed_at = int(log.rpartition("going on after step ")[2].split()[0])
    assert resumed_at >= 20
    assert resumed_at % 10 == 0
    unharmed = run_to_end(make_spec("unharmed", **two))
    assert curve_of(stack, job) == curve_of(stack, unharmed)
    alone = run_to_end(make_spec("alone", training=TRAINING))
    for (step, together), (same_step, loss) in zip(
        curve_of(stack, unharmed)[:50], curve_of(stack, alone)[:50], strict=True
    ):
        assert step == same_step
        assert together == pytest.approx(loss, rel=1e-3)


@pytest.mark.slow
def test_an_elastic_job_trains_with_the_workers_that_the_cluster_has(
    make_spec: Callable[..., dict[str, Any]],
    run_to_end: Callable[[dict[str, Any]], JobRead],
    client: Client,
) -> None:
    num_cpus = psutil.cpu_count() or 1
    resources = {"num_workers": [1, 64], "cpus_per_worker": max(1, num_cpus // 2)}
    training = TRAINING | {"max_steps": 5, "batch_size": 64}
    job = run_to_end(make_spec("elastic", training=training, resources=resources))
    assert job.status == "succeeded", job.failure
    log = "".join(client.logs(job.id))
    assert "world_size=2" in log


def workers_of(stack: LocalStack) -> list[psutil.Process]:
    """The training workers under the stack's Ray head, in the order of their ids."""
    ray_processes = psutil.Process(stack.children["ray"].pid).children(recursive=True)
    return sorted(filter(is_worker, ray_processes), key=lambda process: process.pid)


def is_worker(process: psutil.Process) -> bool:
    try:
        return "RayTrainWorker" in " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False

"""A job that is paused or cancelled leaves a checkpoint of its very last step."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.local import LocalStack
from service.answers import JobRead
from service.client import Client
from tests.end_to_end.conftest import curve_of, wait_for_progress, wait_for_status

pytestmark = [pytest.mark.integration, pytest.mark.slow]

LONG = {"max_steps": 100_000, "num_epochs": 10_000, "checkpoint_every_steps": 10_000}


def test_a_paused_job_goes_on_where_it_stopped_with_the_curve_of_one_that_never_did(
    stack: LocalStack,
    client: Client,
    make_spec: Callable[..., dict[str, Any]],
    run_to_end: Callable[[dict[str, Any]], JobRead],
) -> None:
    training = LONG | {"max_steps": 1500}
    job = client.submit_job(make_spec("interrupted", training=training))
    wait_for_progress(client, job.id, step=5)
    client.pause_job(job.id)
    job = wait_for_status(client, job.id, "paused")
    assert job.progress is not None
    assert job.progress.step is not None
    assert 5 <= job.progress.step == job.progress.checkpoint_step < 1500
    client.resume_job(job.id)
    job = wait_for_status(client, job.id, "succeeded")
    straight = run_to_end(make_spec("uninterrupted", training=training))
    assert straight.status == "succeeded"
    assert curve_of(stack, job) == curve_of(stack, straight)
    assert job.model_version is not None


@pytest.mark.slow
def test_a_damaged_checkpoint_gives_way_to_an_older_one_when_the_job_goes_on(
    stack: LocalStack, client: Client, make_spec: Callable[..., dict[str, Any]]
) -> None:
    training = LONG | {"checkpoint_every_steps": 10, "kept_checkpoints": 3}
    job = client.submit_job(make_spec("damaged", training=training))
    wait_for_progress(client, job.id, step=40)
    client.pause_job(job.id)
    job = wait_for_status(client, job.id, "paused")
    assert job.progress is not None
    stopped_at = job.progress.step
    assert stopped_at is not None
    run_folder = stack.home / "checkpoints" / job.id
    newest, before, _ = sorted(run_folder.glob("checkpoint_*/state.json"), reverse=True)
    truncate(newest.with_name("optimizer.pt"))
    truncate(run_folder / "checkpoint_manager_snapshot.json")
    assert json.loads(newest.read_text())["step"] == stopped_at
    client.resume_job(job.id)
    wait_for_progress(client, job.id, step=stopped_at + 1)
    log = "".join(client.logs(job.id, attempt=2))
    assert f"going on after step {json.loads(before.read_text())['step']}" in log
    client.cancel_job(job.id)
    job = wait_for_status(client, job.id, "cancelled")
    steps = [step for step, _ in curve_of(stack, job)]
    assert steps == list(range(1, len(steps) + 1))


def test_a_cancelled_job_leaves_a_checkpoint_of_its_last_step(
    client: Client, make_spec: Callable[..., dict[str, Any]]
) -> None:
    job = client.submit_job(make_spec("cancelled", training=LONG))
    wait_for_progress(client, job.id, step=5)
    client.cancel_job(job.id)
    job = wait_for_status(client, job.id, "cancelled")
    assert job.progress is not None
    assert job.progress.checkpoint_step == job.progress.step


@pytest.mark.slow
def test_a_job_that_waits_for_its_turn_can_be_paused_and_never_touches_the_cluster(
    client: Client, make_spec: Callable[..., dict[str, Any]]
) -> None:
    busy = [client.submit_job(make_spec("busy", training=LONG)) for _ in range(2)]
    waiting = client.submit_job(make_spec("waiting", training={"max_steps": 1}))
    assert client.pause_job(waiting.id).status == "paused"
    for job in busy:
        client.cancel_job(job.id)
    for job in busy:
        wait_for_status(client, job.id, "cancelled")
    assert client.get_job(waiting.id).status == "paused"
    client.resume_job(waiting.id)
    assert wait_for_status(client, waiting.id, "succeeded").attempt == 1


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])

"""A dry run through real Ray and HTTP foretells what the job then does, and leaves nothing."""

from collections.abc import Callable
from typing import Any

import pytest
from mlflow import MlflowClient

from deploy.local import LocalStack
from service.answers import FileRead, JobRead
from service.client import Client, ProblemError

pytestmark = pytest.mark.integration


def test_a_dry_run_foretells_the_job(
    make_spec: Callable[..., dict[str, Any]],
    run_to_end: Callable[[dict[str, Any]], JobRead],
    client: Client,
    stack: LocalStack,
    sums: FileRead,
) -> None:
    spec = make_spec("foretold", training={"num_epochs": 1, "max_steps": None, "batch_size": 16})
    jobs_before = client.list_jobs().data

    found = client.dry_run(spec)

    assert client.list_jobs().data == jobs_before
    assert found.placement.possible, found.placement.reason
    assert found.memory is not None
    assert found.memory.total > found.memory.framework
    assert found.memory_fits is not None or found.placement.device == "gpu"
    assert found.num_train_rows + found.num_held_out_rows == sums.num_rows
    job = run_to_end(spec)
    assert job.progress is not None, job.failure
    assert found.steps == job.progress.step == job.progress.total_steps
    assert job.model_version is not None
    mlflow = MlflowClient(tracking_uri=stack.mlflow_url)
    tags = mlflow.get_model_version(job.model_version.name, job.model_version.version).tags
    assert found.num_trainable_parameters == int(float(tags["num_trainable_parameters"]))


@pytest.mark.slow  # the unit tests of the jobs hold it, too
def test_what_the_cluster_can_never_place_is_an_answer(
    make_spec: Callable[..., dict[str, Any]], client: Client
) -> None:
    found = client.dry_run(make_spec("huge", resources={"cpus_per_worker": 200}))
    assert not found.placement.possible
    assert found.placement.reason is not None
    assert "200" in found.placement.reason
    assert found.steps == 12


def test_what_would_fail_the_job_is_refused_with_its_code(
    make_spec: Callable[..., dict[str, Any]], client: Client
) -> None:
    with pytest.raises(ProblemError, match="/no/such/folder") as refusal:
        client.dry_run(make_spec("bad", base_model="/no/such/folder"))
    assert (refusal.value.status, refusal.value.code) == (422, "base-model-not-found")

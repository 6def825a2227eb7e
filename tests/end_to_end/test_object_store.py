"""A job whose rows and checkpoints lie in an object store, and on no folder that is shared."""

import gzip
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from deploy.home import StackPorts
from deploy.local import LocalStack
from jobs.run_folder import CHECKPOINT_PREFIX
from service.client import Client
from tests.end_to_end.conftest import curve_of, wait_for_status
from tests.end_to_end.test_recovery import driver_of
from tests.tiny_model import write_addition_rows

pytestmark = [pytest.mark.integration, pytest.mark.slow]

BUCKET = "tuning"


@pytest.fixture(scope="module")
def store() -> Iterator[None]:
    """An S3 server, found by all processes that are started meanwhile."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "HYPLORA_ALLOWED_SOURCES": f"s3://{BUCKET}",
            "HYPLORA_STORAGE_PATH": f"s3://{BUCKET}/checkpoints",
        }.items():
            environment.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield
    server.stop()


@pytest.fixture(scope="module")
def cloud(store: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A stack with its storage there."""
    folders = [tmp_path_factory.getbasetemp()]
    with LocalStack(tmp_path_factory.mktemp("cloud"), StackPorts(0, 0, 0), folders) as stack:
        stack.start()
        yield stack


def test_a_killed_driver_is_followed_by_one_that_resumes_from_the_store(
    cloud: LocalStack, tmp_path: Path, make_spec: Callable[..., dict[str, Any]]
) -> None:
    rows = write_addition_rows(tmp_path / "rows.jsonl")
    boto3.client("s3").put_object(
        Bucket=BUCKET, Key="rows.jsonl.gz", Body=gzip.compress(rows.read_bytes())
    )
    training = {"max_steps": 300, "num_epochs": 1000, "checkpoint_every_steps": 10}
    source = {"train": f"s3://{BUCKET}/rows.jsonl.gz"}
    with Client(cloud.api_url, cloud.token) as client:
        job = client.submit_job(make_spec("in-the-cloud", data=source, training=training))
        for event in client.follow_events(job.id):
            if event.type == "progress" and (event.data.get("checkpoint_step") or 0) >= 10:
                break
        driver_of(cloud).send_signal(signal.SIGKILL)
        job = wait_for_status(client, job.id, "succeeded")
        assert job.attempt == 2
        assert "going on after step" in "".join(client.logs(job.id, attempt=2))
    assert [step for step, _ in curve_of(cloud, job)] == list(range(1, 301))
    assert len(stored_checkpoints(job.id)) == 2, "older ones, and what the kill left, are removed"


def stored_checkpoints(job_id: str) -> list[str]:
    """Where in the store anything of a checkpoint is kept."""
    under = f"checkpoints/{job_id}/{CHECKPOINT_PREFIX}"
    found = boto3.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=under, Delimiter="/")
    return [each["Prefix"] for each in found["CommonPrefixes"]]

"""Metrics and artifacts of a job out of a real MLflow server, through the API."""

import math
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric

from deploy.home import StackPorts
from deploy.local import LocalStack
from service import metric_histories
from service.metric_histories import MetricHistories
from service.mlflow_server import MlflowServer
from service.tracking import MlflowRuns
from tests.unit.service.stage import Stage, make_settings

pytestmark = pytest.mark.integration

NUM_POINTS = 100_000
SPIKE_AT, NAN_AT = 54_321, 77_777
_BATCH = 1000


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    with LocalStack(tmp_path_factory.mktemp("home"), StackPorts(0, 0, 0)) as stack:
        stack.start_mlflow()
        stack.await_ready("mlflow")
        yield stack


@pytest.fixture
def client(stack: LocalStack, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    # What `MlflowRuns` puts into the environment is for the service's process alone.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    return MlflowClient(tracking_uri=stack.mlflow_url)


@pytest.fixture
async def stage(stack: LocalStack, client: MlflowClient, tmp_path: Path) -> AsyncIterator[Stage]:
    stage = Stage(make_settings(tmp_path))
    stage.mlflow = MlflowRuns(MlflowServer(stack.mlflow_url), "hyplora")  # type: ignore[assignment]
    async with stage:
        yield stage


@pytest.fixture
async def job_id(stage: Stage) -> str:
    return await stage.started()


@pytest.fixture
async def run_id(stage: Stage, job_id: str) -> str:
    job = await stage.parts.jobs.get(job_id)
    assert job.run_id is not None
    return job.run_id


def log(
    client: MlflowClient, run_id: str, key: str, values: Mapping[int, float], began_ms: int = 0
) -> None:
    points = [Metric(key, value, began_ms + step, step) for step, value in values.items()]
    for first in range(0, len(points), _BATCH):
        client.log_batch(run_id, metrics=points[first : first + _BATCH])


async def series(stage: Stage, job_id: str, key: str, max_points: int = 500) -> dict[str, Any]:
    path = f"/v1/jobs/{job_id}/metrics?key={key}&max_points={max_points}"
    (found,) = (await stage.get(path))["data"]
    return dict(found)


def loss_at(step: int) -> float:
    if step == NAN_AT:
        return math.nan
    return 9.0 if step == SPIKE_AT else math.exp(-step / 30_000)


@pytest.mark.slow
async def test_a_run_of_a_hundred_thousand_points_keeps_its_shape(
    stage: Stage, stack: LocalStack, job_id: str, run_id: str
) -> None:
    # Into the server's own database: over HTTP, a batch takes three times as long.
    store = MlflowClient(tracking_uri=f"sqlite:///{stack.home}/mlflow/mlflow.db")
    log(store, run_id, "train/loss", {step: loss_at(step) for step in range(1, NUM_POINTS + 1)})

    first = await series(stage, job_id, "train/loss")
    log(store, run_id, "train/loss", {NUM_POINTS + 1: 0.5})
    again = await series(stage, job_id, "train/loss")

    points = dict(zip(first["steps"], first["values"], strict=True))
    assert len(points) <= 500
    assert first["num_points"] == NUM_POINTS
    assert first["is_sampled"] is False
    assert points[1] == loss_at(1)
    assert points[NUM_POINTS] == min(value for value in points.values() if value is not None)
    assert points[SPIKE_AT] == 9.0
    assert points[NAN_AT] is None
    assert first["not_finite"] == [{"step": NAN_AT, "value": "nan"}]
    assert again["num_points"] == NUM_POINTS + 1
    assert (again["steps"][-1], again["values"][-1]) == (NUM_POINTS + 1, 0.5)


async def test_values_that_are_not_finite_come_back_as_they_were_logged(
    stage: Stage, client: MlflowClient, job_id: str, run_id: str
) -> None:
    log(client, run_id, "train/loss", {1: 1.0, 2: math.nan, 3: math.inf, 4: -math.inf, 5: 2.0})

    found = await series(stage, job_id, "train/loss")

    assert found["values"] == [1.0, None, None, None, 2.0]
    assert [each["value"] for each in found["not_finite"]] == ["nan", "inf", "-inf"]


async def test_steps_that_a_resumed_attempt_repeated_are_there_once(
    stage: Stage, client: MlflowClient, job_id: str, run_id: str
) -> None:
    log(client, run_id, "train/loss", dict.fromkeys(range(1, 8), 1.0))
    log(client, run_id, "train/loss", dict.fromkeys(range(5, 11), 2.0), began_ms=1000)

    found = await series(stage, job_id, "train/loss")

    assert found["steps"] == list(range(1, 11))
    assert found["values"] == [1.0] * 4 + [2.0] * 6


@pytest.fixture
def histories(stack: LocalStack, monkeypatch: pytest.MonkeyPatch) -> MetricHistories:
    """Reads ten points a page, and takes five for many."""
    monkeypatch.setattr(metric_histories, "_PAGE", 10)
    monkeypatch.setattr(metric_histories, "_MAX_SAMPLES", 5)
    return MetricHistories(stack.mlflow_url)


def steps_of(history: Any) -> Sequence[int]:
    return list(history.steps)


async def test_what_was_read_is_kept_and_read_on(
    histories: MetricHistories, client: MlflowClient, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(client, run_id, "loss", dict.fromkeys(range(1, 36), 1.0))
    assert steps_of(histories.read(run_id, "loss", 100)) == list(range(1, 36))
    log(client, run_id, "loss", dict.fromkeys(range(36, 40), math.nan))
    queries: list[Any] = []
    get = MetricHistories._get
    monkeypatch.setattr(
        MetricHistories, "_get", lambda self, *of: queries.append(of) or get(self, *of)
    )

    for _ in range(2):
        assert steps_of(histories.read(run_id, "loss", 100)) == list(range(1, 40))

    assert len(queries) == 2


async def test_what_slips_in_before_the_end_is_not_missed(
    histories: MetricHistories, client: MlflowClient, run_id: str
) -> None:
    log(client, run_id, "loss", dict.fromkeys(range(100, 135), 1.0))
    histories.read(run_id, "loss", 100)
    log(client, run_id, "loss", dict.fromkeys(range(1, 8), 2.0))

    assert steps_of(histories.read(run_id, "loss", 100)) == [*range(1, 8), *range(100, 135)]


@pytest.mark.parametrize("repeats", [1, 5])
async def test_a_series_that_is_too_long_comes_sampled(
    histories: MetricHistories, client: MlflowClient, run_id: str, repeats: int
) -> None:
    for number in range(repeats):
        values = dict.fromkeys(range(1, 41), float(number))
        log(client, run_id, "loss", values, began_ms=1000 * number)

    found = histories.read(run_id, "loss", 30 if repeats == 1 else 50)

    assert found.is_sampled
    assert len(found.steps) == 5
    assert (found.steps[0], found.steps[-1]) == (1, 40)
    whole = histories.read(run_id, "loss", 1000)
    assert not whole.is_sampled
    assert len(whole.steps) == 40 * repeats


async def test_values_at_single_steps_are_found_in_long_series_too(
    histories: MetricHistories, client: MlflowClient, run_id: str
) -> None:
    log(client, run_id, "loss", {step: float(step) for step in range(1, 41)})
    log(client, run_id, "loss", {30: 99.0}, began_ms=1000)

    assert histories.values_at(run_id, "loss", [7, 30, 50]) == {7: 7.0, 30: 99.0}
    assert histories.values_at(run_id, "loss", []) == {}
    assert histories.values_at(run_id, "none", [7]) == {}


async def test_the_files_of_a_run_are_listed_and_downloaded(
    stage: Stage, client: MlflowClient, job_id: str, run_id: str, tmp_path: Path
) -> None:
    content = bytes(range(256)) * 20_000
    (tmp_path / "big.bin").write_bytes(content)
    client.log_artifact(run_id, str(tmp_path / "big.bin"), "plots/deep er")
    client.log_text(run_id, "first\n", "logs/attempt-1.log")
    path = f"/v1/jobs/{job_id}/artifacts"

    listed = (await stage.get(path))["data"]
    file = await stage.client.get(f"{path}/plots/deep%20er/big.bin")

    assert [
        (each["path"], each["size_bytes"]) for each in listed if each["path"] != "job.json"
    ] == [
        ("logs/attempt-1.log", 6),
        ("plots/deep er/big.bin", len(content)),
    ]
    assert file.content == content
    assert (await stage.client.get(f"{path}/logs/attempt-1.log")).text == "first\n"


async def test_nothing_but_the_files_of_the_run_is_handed_out(
    stage: Stage, client: MlflowClient, job_id: str, run_id: str
) -> None:
    other = client.create_run("0").info.run_id
    client.log_text(other, "secret", "secret.txt")
    path = f"/v1/jobs/{job_id}/artifacts"

    for name in (f"..%2f..%2f{other}%2fartifacts%2fsecret.txt", "secret.txt", "logs", "none/x"):
        assert (await stage.client.get(f"{path}/{name}")).status_code in {404, 422}, name


async def test_a_run_that_was_deleted_is_told(
    stage: Stage, client: MlflowClient, job_id: str, run_id: str
) -> None:
    client.delete_run(run_id)

    for part in ("metrics", "checkpoints", "artifacts", "artifacts/job.json"):
        response = await stage.client.get(f"/v1/jobs/{job_id}/{part}")
        assert (response.status_code, response.json()["code"]) == (404, "run-not-found"), part

"""The metrics writer against a real MLflow server that goes away and comes back."""

from collections.abc import Iterator

import pytest
from mlflow import MlflowClient

from deploy.home import StackPorts
from deploy.local import LocalStack
from jobs.tracking import MetricsNotSavedError, RunWriter

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    with LocalStack(tmp_path_factory.mktemp("home"), StackPorts(0, 0, 0)) as stack:
        stack.start_mlflow()
        stack.await_ready("mlflow")
        yield stack


@pytest.fixture
def client(stack: LocalStack, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    return MlflowClient(tracking_uri=stack.mlflow_url)


def new_run(client: MlflowClient) -> str:
    return str(client.create_run("0").info.run_id)


def loss_by_step(client: MlflowClient, run_id: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client.get_metric_history(run_id, "loss")]


def test_every_value_arrives_at_its_step(client: MlflowClient) -> None:
    run_id = new_run(client)
    writer = RunWriter(client, run_id)
    for step in range(1, 2001):
        writer.write(step, {"loss": 1.0 / step, "rate": 0.1})
    writer.close()
    assert loss_by_step(client, run_id) == [(step, 1.0 / step) for step in range(1, 2001)]


def test_no_value_is_lost_while_mlflow_is_away(stack: LocalStack, client: MlflowClient) -> None:
    run_id = new_run(client)
    writer = RunWriter(client, run_id)
    writer.write(1, {"loss": 1.0})
    stack.children.pop("mlflow").stop(grace_s=20.0)
    for step in range(2, 51):
        writer.write(step, {"loss": 1.0 / step})
    stack.start_mlflow()
    writer.close()
    assert [step for step, _ in loss_by_step(client, run_id)] == list(range(1, 51))


def test_steps_that_a_resumed_run_repeats_are_recorded_once(client: MlflowClient) -> None:
    run_id = new_run(client)
    for steps in (range(1, 8), range(5, 11)):
        writer = RunWriter(client, run_id)
        for step in steps:
            writer.write(step, {"loss": 1.0 / step})
        writer.close()
    assert [step for step, _ in loss_by_step(client, run_id)] == list(range(1, 11))


def test_giving_up_says_how_much_is_missing(client: MlflowClient) -> None:
    writer = RunWriter(MlflowClient(tracking_uri="http://127.0.0.1:9"), "no-run")
    writer.write(1, {"loss": 1.0, "rate": 0.1})
    with pytest.raises(MetricsNotSavedError, match="did not take 2 values"):
        writer.close(timeout_s=2.0)

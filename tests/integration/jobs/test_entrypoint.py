"""How a driver records its end in MLflow, on a real store in a file."""

from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from jobs.entrypoint import run_driver
from jobs.errors import ResourcesUnavailableError, TrainingFailedError
from jobs.finetune_specs import FinetuneSpec
from jobs.tickets import TICKET_VARIABLE, JobTicket, RunTag
from workers.reach import REACH_VARIABLE
from workers.specs import FailureCode

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    folder = tmp_path_factory.mktemp("mlflow")
    return MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")


@pytest.fixture
def run_id(client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An MLflow run whose ticket lies in the environment."""
    run_id = str(client.create_run("0").info.run_id)
    ticket = JobTicket(
        job_id="job-1",
        attempt=1,
        run_id=run_id,
        tracking_uri=client.tracking_uri,
        storage_path=str(tmp_path),
        spec=FinetuneSpec.model_validate(
            {
                "kind": "finetune",
                "name": "a",
                "base_model": "b",
                "data": {"train": "file-0123456789abcdef"},
            }
        ),
        files={},
    )
    monkeypatch.setenv(REACH_VARIABLE, "")  # what the driver writes there ends with the test
    monkeypatch.setenv(TICKET_VARIABLE, ticket.model_dump_json())
    return run_id


def failing_with(error: Exception) -> Callable[[JobTicket], None]:
    def fail(_ticket: JobTicket) -> None:
        raise error

    return fail


def test_a_job_that_ends_well_finishes_its_run(client: MlflowClient, run_id: str) -> None:
    assert run_driver(lambda _ticket: None) == 0
    assert client.get_run(run_id).info.status == "FINISHED"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ResourcesUnavailableError("ask for less"), FailureCode.RESOURCES_UNAVAILABLE),
        (TrainingFailedError("ask for less", "row-too-long"), FailureCode.ROW_TOO_LONG),
    ],
    ids=["of the driver", "of a worker"],
)
def test_a_failure_a_user_can_act_on_is_recorded_with_its_code(
    error: Exception, code: FailureCode, client: MlflowClient, run_id: str
) -> None:
    assert run_driver(failing_with(error)) == 1
    run = client.get_run(run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags[RunTag.FAILURE_CODE] == code
    assert run.data.tags[RunTag.FAILURE_MESSAGE] == "ask for less"


def test_a_bug_is_no_recorded_failure_so_that_the_job_is_tried_again(
    client: MlflowClient, run_id: str
) -> None:
    with pytest.raises(ZeroDivisionError):
        run_driver(failing_with(ZeroDivisionError()))
    run = client.get_run(run_id)
    assert run.info.status == "RUNNING"
    assert RunTag.FAILURE_CODE not in run.data.tags

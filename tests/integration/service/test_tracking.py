"""`MlflowRuns` on MLflow's own store, in a SQLite file."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType

from jobs.tickets import RunTag
from service import tracking
from service.boundaries import RunStatus
from service.errors import MlflowUnavailableError, RefusedError
from service.mlflow_server import MlflowServer
from service.tracking import MlflowRuns

pytestmark = pytest.mark.integration

EXPERIMENT = "tuning"


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder}/mlflow.db"
    MlflowClient(uri).create_experiment(EXPERIMENT, artifact_location=str(folder / "artifacts"))
    return uri


@pytest.fixture
def client(uri: str) -> MlflowClient:
    return MlflowClient(uri)


@pytest.fixture
def runs(uri: str, monkeypatch: pytest.MonkeyPatch) -> MlflowRuns:
    # What the constructor puts into the environment is for the service's process alone.
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.setenv(name, "1")
    return MlflowRuns(MlflowServer(uri), EXPERIMENT)


async def test_a_run_is_found_by_its_job_and_by_its_id(runs: MlflowRuns) -> None:
    ref = await runs.create("job-1", "sums", "python -m jobs.finetune")

    found, read = await runs.find("job-1"), await runs.read(ref.run_id)

    assert found == read
    assert found is not None
    assert found.ref == ref
    assert found.status is RunStatus.RUNNING
    assert found.tags["mlflow.runName"] == "sums"
    assert found.tags["mlflow.source.name"] == "python -m jobs.finetune"
    assert found.seconds_since_end == 0


async def test_a_job_without_a_run_has_none(runs: MlflowRuns) -> None:
    assert await runs.find("job-none") is None
    assert await runs.read("0" * 32) is None


async def test_doubles_of_a_run_are_deleted_and_the_first_is_kept(
    runs: MlflowRuns, client: MlflowClient
) -> None:
    first = await runs.create("job-2", "sums", "")
    second = await runs.create("job-2", "sums", "")

    found = await runs.find("job-2")

    assert found is not None
    assert found.ref == first
    assert client.get_run(second.run_id).info.lifecycle_stage == "deleted"
    assert client.get_run(first.run_id).info.lifecycle_stage == "active"


async def test_all_runs_of_a_job_but_the_one_it_has_are_deleted(
    runs: MlflowRuns, client: MlflowClient
) -> None:
    late = await runs.create("job-4", "sums", "")
    own = await runs.create("job-4", "sums", "")
    other = await runs.create("job-5", "sums", "")
    tags = {RunTag.JOB_ID: "job-4", "mlflow.parentRunId": own.run_id}
    child = client.create_run(own.experiment_id, tags=tags)

    await runs.discard_doubles("job-4", own.run_id)

    stages = {
        run_id: client.get_run(run_id).info.lifecycle_stage
        for run_id in (late.run_id, own.run_id, other.run_id, child.info.run_id)
    }
    assert [name for name, stage in stages.items() if stage == "deleted"] == [late.run_id]


async def test_the_runs_of_trials_are_no_doubles(runs: MlflowRuns, client: MlflowClient) -> None:
    parent = await runs.create("job-3", "sums", "")
    tags = {RunTag.JOB_ID: "job-3", "mlflow.parentRunId": parent.run_id}
    child = client.create_run(parent.experiment_id, tags=tags)

    found = await runs.find("job-3")

    assert found is not None
    assert found.ref == parent
    assert client.get_run(child.info.run_id).info.lifecycle_stage == "active"


async def test_the_runs_of_trials_are_read_page_by_page_oldest_first(
    runs: MlflowRuns, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_RUNS_PER_PAGE", 3)
    parent = await runs.create("job-11", "search", "")
    other = await runs.create("job-12", "search", "")
    tags = {RunTag.JOB_ID: "job-11", "mlflow.parentRunId": parent.run_id}
    ids = [
        client.create_run(parent.experiment_id, start_time=1000 * n, tags=tags).info.run_id
        for n in range(7, 0, -1)
    ]
    client.log_metric(ids[0], "objective/eval/loss", 0.5)
    client.set_terminated(ids[0], "FINISHED", end_time=9500)
    client.delete_run(ids[3])

    found = await runs.children(parent)

    assert [run.ref.run_id for run in found] == [*ids[:3:-1], *ids[2::-1]]
    assert found[0].ended_at is None
    assert found[-1].metrics == {"objective/eval/loss": 0.5}
    assert found[-1].started_at == datetime(1970, 1, 1, 0, 0, 7, tzinfo=UTC)
    assert found[-1].ended_at == datetime(1970, 1, 1, 0, 0, 9, 500_000, tzinfo=UTC)
    assert await runs.children(other) == []


async def test_a_wish_is_left_on_a_run_and_can_be_left_again(runs: MlflowRuns) -> None:
    ref = await runs.create("job-13", "search", "")

    for _ in range(2):
        await runs.set_tag(ref.run_id, RunTag.CANCEL_REQUESTED, "true")

    report = await runs.read(ref.run_id)
    assert report is not None
    assert report.tags[RunTag.CANCEL_REQUESTED] == "true"
    with pytest.raises(RefusedError):
        await runs.set_tag("0" * 32, RunTag.CANCEL_REQUESTED, "true")


async def test_a_deleted_run_counts_as_gone(runs: MlflowRuns, client: MlflowClient) -> None:
    ref = await runs.create("job-deleted", "sums", "")
    client.delete_run(ref.run_id)

    assert await runs.read(ref.run_id) is None
    assert await runs.find("job-deleted") is None


async def test_parameters_and_the_document_can_be_logged_again(
    runs: MlflowRuns, client: MlflowClient, tmp_path: Path
) -> None:
    ref = await runs.create("job-5", "sums", "")
    parameters = {f"p{n}": str(n) for n in range(250)} | {"long": "x" * 10_000}

    for _ in range(2):
        await runs.describe(ref.run_id, parameters, {"spec": {"name": "sums"}})

    logged = client.get_run(ref.run_id).data.params
    assert len(logged) == 251
    assert logged["p249"] == "249"
    assert logged["long"] == "x" * 6000
    client.download_artifacts(ref.run_id, "job.json", str(tmp_path))
    assert json.loads((tmp_path / "job.json").read_bytes()) == {"spec": {"name": "sums"}}


async def test_what_a_driver_records_is_seen(runs: MlflowRuns, client: MlflowClient) -> None:
    ref = await runs.create("job-6", "sums", "")
    client.set_tag(ref.run_id, RunTag.FAILURE_CODE, "row-too-long")
    for step in (1, 2):
        client.log_metric(ref.run_id, "train/loss", 3.0 - step, step=step)
    client.set_terminated(ref.run_id, "FAILED", end_time=0 + 1)

    report = await runs.read(ref.run_id)

    assert report is not None
    assert report.tags[RunTag.FAILURE_CODE] == "row-too-long"
    assert report.metrics["train/loss"] == 1.0
    assert report.status is RunStatus.FAILED
    assert report.status.is_ended
    assert report.seconds_since_end > 60


@pytest.mark.parametrize("status", [RunStatus.FINISHED, RunStatus.FAILED, RunStatus.KILLED])
async def test_a_run_is_closed(runs: MlflowRuns, status: RunStatus) -> None:
    ref = await runs.create(f"job-{status}", "sums", "")

    await runs.end(ref.run_id, status)

    report = await runs.read(ref.run_id)
    assert report is not None
    assert report.status is status


async def test_a_run_is_scheduled_while_its_job_is_paused_and_then_runs_again(
    runs: MlflowRuns, client: MlflowClient
) -> None:
    ref = await runs.create("job-9", "sums", "")
    client.set_terminated(ref.run_id, "KILLED", end_time=1)

    for status in (RunStatus.SCHEDULED, RunStatus.RUNNING):
        await runs.set_status(ref.run_id, status)

        report = await runs.read(ref.run_id)
        assert report is not None
        assert (report.status, report.seconds_since_end) == (status, 0.0)


async def test_a_log_is_kept_with_the_run_and_read_back(runs: MlflowRuns) -> None:
    ref = await runs.create("job-7", "sums", "")
    await runs.save_log(ref.run_id, 2, "first\nsecond ü\n")

    assert await runs.read_log(ref.run_id, 2) == "first\nsecond ü\n"
    assert await runs.read_log(ref.run_id, 1) is None


async def test_an_experiment_is_made_on_first_use_and_restored_when_it_was_deleted(
    uri: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = MlflowRuns(MlflowServer(uri), "another")
    assert await runs.find("job-8") is None

    ref = await runs.create("job-8", "sums", "")
    client.delete_experiment(ref.experiment_id)
    again = await runs.create("job-9", "sums", "")

    assert again.experiment_id == ref.experiment_id
    (experiment,) = client.search_experiments(ViewType.ACTIVE_ONLY, filter_string="name='another'")
    assert experiment.experiment_id == ref.experiment_id


async def test_what_mlflow_will_always_refuse_is_told_from_an_outage(runs: MlflowRuns) -> None:
    ref = await runs.create("job-10", "sums", "")

    with pytest.raises(RefusedError, match="MLflow refused"):
        await runs.describe(ref.run_id, {"a parameter / with \x00": "1"}, {})

    await runs.ping()


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    runs = MlflowRuns(MlflowServer("http://127.0.0.1:9"), EXPERIMENT)

    for call in (runs.ping(), runs.find("job-1"), runs.read("run"), runs.save_log("run", 1, "x")):
        with pytest.raises(MlflowUnavailableError, match="Connection refused"):
            await call


async def test_the_files_of_a_folder_are_listed_and_read(
    runs: MlflowRuns, client: MlflowClient, tmp_path: Path
) -> None:
    ref = await runs.create("job-21", "exam", "")
    (tmp_path / "inner").mkdir()
    (tmp_path / "report.md").write_text("# Exam")
    (tmp_path / "inner" / "deep.md").write_text("deep")
    client.log_artifacts(ref.run_id, str(tmp_path), "evaluate")

    (found,) = await runs.artifacts(ref.run_id, "evaluate")

    assert (found.path, found.name, found.size_bytes) == ("evaluate/report.md", "report.md", 6)
    assert await runs.read_artifact(ref.run_id, found.path) == b"# Exam"
    assert await runs.artifacts(ref.run_id, "compare") == []


async def test_files_of_a_run_that_never_was_are_refused(runs: MlflowRuns) -> None:
    with pytest.raises(RefusedError):
        await runs.artifacts("0" * 32, "evaluate")

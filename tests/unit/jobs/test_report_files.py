from pathlib import Path

import altair as alt
import pytest
from mlflow import MlflowClient

from jobs.plot import Plot
from jobs.report_files import report_files
from workers.document import Document


class Found(Document):
    answer: int


@pytest.fixture
def client(tmp_path: Path) -> MlflowClient:
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    client.create_experiment("reports", artifact_location=(tmp_path / "artifacts").as_uri())
    return client


@pytest.fixture
def run_id(client: MlflowClient) -> str:
    experiment = client.get_experiment_by_name("reports")
    assert experiment is not None
    return str(client.create_run(experiment.experiment_id).info.run_id)


def test_a_report_its_plots_and_what_is_added_lie_in_the_folder_of_the_kind(
    client: MlflowClient, run_id: str, tmp_path: Path
) -> None:
    plot = Plot("dots", "Dots", alt.Chart(alt.Data(values=[{"x": 1}])).mark_point())
    page = "# Found – δ"
    with report_files(client, run_id, "evaluate", Found(answer=42), page, [plot]) as folder:
        (folder / "more.txt").write_text("more")
    names = {Path(each.path).name for each in client.list_artifacts(run_id, "evaluate")}
    assert names == {"report.json", "report.md", "dots.png", "dots.html", "more.txt"}
    found = Path(client.download_artifacts(run_id, "evaluate", str(tmp_path)))
    assert Found.model_validate_json((found / "report.json").read_text("utf-8")).answer == 42
    assert (found / "report.md").read_text("utf-8") == page


def test_a_report_that_cannot_be_completed_is_not_left_in_part(
    client: MlflowClient, run_id: str
) -> None:
    with (
        pytest.raises(OSError, match="full"),
        report_files(client, run_id, "compare", Found(answer=42), "page"),
    ):
        raise OSError("full")
    assert client.list_artifacts(run_id) == []

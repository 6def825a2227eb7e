"""How an analysis goes on and what it leaves, on a real MLflow store in a file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from hyplora.analysis.word_groups import WordGroupNorms
from jobs.analysis import running
from jobs.analysis.measuring import AnalysisTask
from jobs.analysis.of_finetune import analyze_finetuned
from jobs.analysis.running import run_analysis
from jobs.analysis_report.report import AnalysisReport
from jobs.errors import StoppedEarlyError, WorkersLostError
from jobs.finetune_specs import FinetuneSpec
from jobs.tickets import JobTicket
from workers.analysis_spec import AnalysisSpec
from workers.analyze import Subject
from workers.errors import DataInvalidError
from workers.specs import ResourcesSpec

pytestmark = pytest.mark.integration

DATA = "file-0123456789abcdef"
GROUPS = (WordGroupNorms("nouns", (), ("puppy",), None, None, None),)
SPEC = FinetuneSpec.model_validate(
    {"kind": "finetune", "name": "a", "base_model": "b", "data": {"train": DATA}, "analysis": {}}
)
OnPart = Callable[[AnalysisReport], None]


@pytest.fixture(scope="module")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def ticket(tracking_uri: str, tmp_path: Path) -> JobTicket:
    client = MlflowClient(tracking_uri=tracking_uri)
    files = (tmp_path / "files").as_uri()
    run = client.create_run(client.create_experiment(tmp_path.name, artifact_location=files))
    paths = {"tracking_uri": tracking_uri, "storage_path": str(tmp_path)}
    return JobTicket(
        job_id="job-1", attempt=1, run_id=run.info.run_id, spec=SPEC, files={}, **paths
    )


def task(adapter: str | None = None) -> AnalysisTask:
    subject = Subject("b", adapter, DATA, {}, {}, None)
    spec = AnalysisSpec(parts=("power_law", "word_groups"))
    return AnalysisTask(subject, spec, ResourcesSpec())


def with_groups(begun: AnalysisReport) -> AnalysisReport:
    return begun.model_copy(update={"word_groups": GROUPS})


def stopped_after_one_part(_: Any, begun: AnalysisReport, __: Any, on_part: OnPart) -> Any:
    on_part(begun.model_copy(update={"left_out": {"power_law": "too few tokens"}}))
    raise StoppedEarlyError("stopped")


def test_another_attempt_goes_on_with_the_parts_that_are_there(
    ticket: JobTicket, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop: Any = None
    monkeypatch.setattr(running, "measure", stopped_after_one_part)
    with pytest.raises(StoppedEarlyError):
        run_analysis(ticket, task(), stop)
    seen: list[AnalysisReport] = []

    def measure(_: Any, begun: AnalysisReport, __: Any, ___: OnPart) -> AnalysisReport:
        seen.append(begun)
        return with_groups(begun)

    monkeypatch.setattr(running, "measure", measure)
    steps: list[tuple[int, int]] = []
    report = run_analysis(ticket, task(), stop, lambda _, *step: steps.append(step))
    run_analysis(ticket, task(adapter="/other"), stop)
    assert [begun.has("power_law") for begun in seen] == [True, False]
    assert report.has("word_groups")
    assert steps == [(1, 2)]
    found = MlflowClient(tracking_uri=ticket.tracking_uri).list_artifacts(ticket.run_id, "analyze")
    assert {"analyze/report.html", "analyze/report.json", "analyze/report.md"} == {
        each.path for each in found
    }


def test_rows_on_which_nothing_can_be_measured_fail_the_job(
    ticket: JobTicket, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons = {"power_law": "too few tokens", "word_groups": "no words"}
    monkeypatch.setattr(
        running,
        "measure",
        lambda _, begun, *__: begun.model_copy(update={"left_out": reasons}),
    )
    stop: Any = None
    with pytest.raises(DataInvalidError, match="power_law: too few tokens"):
        run_analysis(ticket, task(), stop)


def test_an_analysis_that_fails_loses_no_adapter(
    ticket: JobTicket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(*_: Any) -> Any:
        raise WorkersLostError("the worker died 3 times")

    monkeypatch.setattr(running, "measure", lose)
    stop: Any = None
    version = ModelVersion("a", "1", 0)
    summary = analyze_finetuned(ticket, SPEC, version, stop)
    assert summary is not None
    assert summary.endswith("analysis failed: the worker died 3 times")
    plain = SPEC.model_copy(update={"analysis": None})
    assert analyze_finetuned(ticket, plain, version, stop) is None
    monkeypatch.setattr(running, "measure", stopped_after_one_part)
    with pytest.raises(StoppedEarlyError):
        analyze_finetuned(ticket, SPEC, version, stop)

"""Analyses as users run them: as jobs of their own, and as a flag of a fine-tune."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from deploy.local import LocalStack
from jobs.analysis_report.report import AnalysisReport
from service.answers import FileRead, JobRead
from service.client import Client

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ANALYSIS = {"num_prompts": 6, "num_base_points": 1, "num_resamples": 20}
Analyze = Callable[..., JobRead]


@pytest.fixture(scope="module")
def finetuned(
    make_spec: Callable[..., dict[str, Any]], run_to_end: Callable[[dict[str, Any]], JobRead]
) -> JobRead:
    """A fine-tune that learns K and has its adapter looked at."""
    adapter = {"learn_curvature": True, "target_modules": ["q_proj", "down_proj"]}
    training = {"max_steps": 6, "geometry_every_steps": 2}
    return run_to_end(make_spec("looked-at", adapter=adapter, training=training, analysis=ANALYSIS))


@pytest.fixture(scope="module")
def analyze(
    tiny_model_dir: Path, sums: FileRead, run_to_end: Callable[[dict[str, Any]], JobRead]
) -> Analyze:
    """Run an analysis of the tiny model; fields given are added to its spec."""

    def run(name: str, **fields: Any) -> JobRead:
        spec = {"kind": "analyze", "name": name, "base_model": str(tiny_model_dir)}
        return run_to_end(spec | {"data": sums.id, "analysis": ANALYSIS} | fields)

    return run


def test_a_fine_tune_with_an_analysis_registers_its_adapter_and_tells_what_it_changed(
    finetuned: JobRead, stack: LocalStack, tmp_path: Path
) -> None:
    assert finetuned.status == "succeeded", finetuned.failure
    assert finetuned.model_version is not None
    assert finetuned.progress is not None
    assert finetuned.progress.total_steps == 6
    run = run_of(stack, finetuned)
    assert "with the adapter" in run.data.tags["hyplora.summary"]
    report = report_of(stack, run, tmp_path)
    assert report.adapter == finetuned.model_version.uri
    assert report.hyperbolicity is not None
    assert report.hyperbolicity.adapter_effect is not None
    assert report.adapter_effect is not None
    names = {layer.name.removeprefix("base_model.model.") for layer in report.adapter_effect.layers}
    assert set(report.curvatures) == names
    assert [point.step for point in next(iter(report.curvatures.values()))] == [2, 4, 6]


def test_an_adapter_is_analyzed_from_the_registry(
    finetuned: JobRead, analyze: Analyze, stack: LocalStack, client: Client, tmp_path: Path
) -> None:
    assert finetuned.model_version is not None
    job = analyze("adapter", model="models:/looked-at/latest")
    assert job.status == "succeeded", job.failure
    assert job.progress is not None
    assert (job.progress.step, job.progress.total_steps) == (5, 5)
    run = run_of(stack, job)
    report = report_of(stack, run, tmp_path)
    of_flag = report_of(stack, run_of(stack, finetuned), tmp_path)
    assert report == of_flag
    assert report.hyperbolicity is not None
    assert run.data.metrics["analysis/delta_relative_hidden"] == pytest.approx(
        report.hyperbolicity.hidden.mean_relative
    )
    paths = {found.path for found in tracking(stack).list_artifacts(run.info.run_id, "analyze")}
    plots = {"hyperbolicity", "gain", "displacement", "curvature_over_training"}
    assert {f"analyze/{name}.{kind}" for name in plots for kind in ("png", "html")} <= paths
    assert {f"analyze/report.{kind}" for kind in ("json", "html", "md")} <= paths
    assert job.summary == run.data.tags["hyplora.summary"]


def test_a_base_model_is_analyzed_and_what_cannot_be_measured_is_named(
    analyze: Analyze, stack: LocalStack, tmp_path: Path
) -> None:
    job = analyze("base")
    assert job.status == "succeeded", job.failure
    report = report_of(stack, run_of(stack, job), tmp_path)
    assert report.adapter is None
    assert report.hyperbolicity is not None
    assert report.hyperbolicity.adapter_effect is None
    assert set(report.left_out) == {"power_law", "adapter_effect"}
    assert "there is no adapter" in report.findings[-1]


def test_an_adapter_that_is_not_there_fails_the_job_by_name(analyze: Analyze) -> None:
    job = analyze("nothing", model="models:/nothing/1")
    assert job.failure is not None
    assert job.failure.code == "adapter-unusable"
    assert "models:/nothing/1" in job.failure.message


def tracking(stack: LocalStack) -> MlflowClient:
    return MlflowClient(tracking_uri=stack.mlflow_url)


def run_of(stack: LocalStack, job: JobRead) -> Run:
    assert job.links.mlflow_run is not None
    return tracking(stack).get_run(job.links.mlflow_run.rpartition("/")[2])


def report_of(stack: LocalStack, run: Run, folder: Path) -> AnalysisReport:
    target = folder / run.info.run_id
    target.mkdir()
    path = tracking(stack).download_artifacts(run.info.run_id, "analyze/report.json", str(target))
    return AnalysisReport.model_validate_json(Path(path).read_text())

"""What jobs found, as the API hands it out."""

import json

import httpx
import pytest

from service import reports
from tests.unit.service.stage import Stage

FOUND = {"findings": ["tuned answers 3.1 points more"], "models": {}}
PAGE = "# Exam\n\ntuned answers 3.1 points more – μ ± σ\n"
FILES = {
    "report.json": json.dumps(FOUND).encode(),
    "report.md": PAGE.encode(),
    "scores.png": b"\x89PNG",
    "scores.html": b"<script>alert(1)</script>",
    "predictions.parquet": b"PAR1",
    "notes.exe": b"MZ",
}
FOLDERS = {"evaluate": "evaluate", "compare": "compare", "analyze": "analyze", "search": "search"}


async def with_report(stage: Stage, kind: str = "evaluate") -> str:
    """A job of a kind whose driver has written its report."""
    job_id = await stage.begin(await getattr(stage, f"{kind}_spec")())
    for name, content in FILES.items():
        stage.mlflow.files[stage.run_id(job_id), f"{FOLDERS[kind]}/{name}"] = content
    return job_id


async def refused(stage: Stage, path: str) -> tuple[int, str, str]:
    response = await stage.client.get(path)
    problem = response.json()
    return response.status_code, problem["code"], problem["detail"]


def require_harmless(response: httpx.Response) -> None:
    assert response.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("kind", FOLDERS)
async def test_a_report_is_data_or_a_page(stage: Stage, kind: str) -> None:
    job_id = await with_report(stage, kind)
    path = (await stage.job(job_id))["links"]["report"]
    assert path == f"/v1/jobs/{job_id}/report"

    data = await stage.client.get(path)
    page = await stage.client.get(path, headers={"Accept": "text/markdown"})
    asked = await stage.client.get(f"{path}?format=markdown")
    forced = await stage.client.get(f"{path}?format=json", headers={"Accept": "text/markdown"})

    assert data.json() == forced.json() == FOUND
    assert data.headers["Content-Type"] == "application/json"
    assert page.text == asked.text == PAGE
    assert page.headers["Content-Type"] == "text/markdown; charset=utf-8"
    require_harmless(page)


async def test_a_fine_tune_has_a_report_if_it_was_asked_for_an_analysis(stage: Stage) -> None:
    job_id = await stage.started(analysis={})
    for name, content in FILES.items():
        stage.mlflow.files[stage.run_id(job_id), f"analyze/{name}"] = content
    plain = await stage.started()

    assert await stage.get(f"/v1/jobs/{job_id}/report") == FOUND
    assert (await stage.job(plain))["links"]["report"] is None
    status, code, detail = await refused(stage, f"/v1/jobs/{plain}/report")
    assert (status, code) == (404, "report-not-found")
    assert "without `analysis`" in detail


async def test_a_report_that_is_not_there_yet_or_never_came_says_so(stage: Stage) -> None:
    job_id = await stage.begin(await stage.evaluate_spec())
    stage.mlflow.files[stage.run_id(job_id), "evaluate/predictions.parquet"] = b"PAR1"
    running = await refused(stage, f"/v1/jobs/{job_id}/report")
    stage.fail(job_id, "data-invalid", "line 7")
    await stage.work()
    failed = await refused(stage, f"/v1/jobs/{job_id}/report/files")

    assert running[:2] == failed[:2] == (404, "report-not-found")
    assert "is running and has no report: it is written at the end" in running[2]
    assert "is failed and has no report: it ended without one" in failed[2]


async def test_a_job_that_has_not_begun_and_one_whose_run_is_gone_have_no_report(
    stage: Stage,
) -> None:
    response = await stage.client.post("/v1/jobs", json=await stage.evaluate_spec())
    waiting = await refused(stage, f"/v1/jobs/{response.json()['id']}/report")
    job_id = await with_report(stage)
    stage.mlflow.refuses = True
    gone = await refused(stage, f"/v1/jobs/{job_id}/report")

    assert waiting[:2] == gone[:2] == (404, "report-not-found")


async def test_the_files_of_a_report_are_listed_and_downloaded(stage: Stage) -> None:
    job_id = await with_report(stage)
    path = f"/v1/jobs/{job_id}/report/files"

    listed = {file["name"]: file for file in (await stage.get(path))["data"]}

    assert {name: file["size_bytes"] for name, file in listed.items()} == {
        name: len(content) for name, content in FILES.items()
    }
    for name, content in FILES.items():
        response = await stage.client.get(f"{path}/{name}")
        assert response.content == content
        assert response.headers["Content-Type"] == listed[name]["media_type"]
        assert response.headers["Content-Disposition"].startswith("attachment; ")
        require_harmless(response)
    assert listed["scores.png"]["media_type"] == "image/png"
    assert listed["notes.exe"]["media_type"] == "application/octet-stream"


@pytest.mark.parametrize(
    "name",
    ["none.png", "%2e%2e", "..%2Freport.md", "%2Fetc%2Fpasswd", "evaluate%2Freport.md"],
)
async def test_only_files_of_the_report_can_be_named(stage: Stage, name: str) -> None:
    job_id = await with_report(stage)
    stage.mlflow.files[stage.run_id(job_id), "job.json"] = b"{}"

    status, code, _ = await refused(stage, f"/v1/jobs/{job_id}/report/files/{name}")

    assert (status, code) in {(404, "report-file-not-found"), (404, "not-found")}


async def test_a_file_that_is_too_large_is_left_to_mlflow(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "_MAX_BYTES", 10)
    job_id = await with_report(stage)

    status, code, detail = await refused(stage, f"/v1/jobs/{job_id}/report")

    assert (status, code) == (404, "report-file-not-found")
    assert "take it from MLflow: evaluate/report.json" in detail


async def test_mlflow_that_is_away_is_told(stage: Stage) -> None:
    job_id = await with_report(stage)
    stage.mlflow.is_away = True

    assert (await refused(stage, f"/v1/jobs/{job_id}/report"))[:2] == (503, "mlflow-unavailable")


async def test_a_job_that_is_none_has_no_report(stage: Stage) -> None:
    assert (await refused(stage, "/v1/jobs/job-0/report"))[:2] == (404, "job-not-found")

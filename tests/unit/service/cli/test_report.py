"""`hyplora report`: what a job found, printed and saved."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.service.cli.conftest import JOB_ID, Outcome, ScriptedService, problem

Run = Callable[..., Outcome]
REPORT_PATH = f"/v1/jobs/{JOB_ID}/report"
PAGE = "# Exam\n\n| task | accuracy |\n| --- | --- |\n| [gsm8k] | 31 % |\n"
FOUND = {"findings": ["tuned wins – by 3.1"]}


def answer(request: httpx.Request) -> httpx.Response:
    if request.url.params.get("format") == "markdown":
        return httpx.Response(200, text=PAGE)
    return httpx.Response(200, json=FOUND)


def listed(*names: str) -> dict[str, Any]:
    files = [{"name": name, "size_bytes": 3, "media_type": "image/png"} for name in names]
    return {"data": files, "has_more": False}


@pytest.fixture(autouse=True)
def _report(service: ScriptedService) -> None:
    service.on("GET", REPORT_PATH, answer)


def test_a_pipe_gets_the_page_as_it_is(hyplora: Run) -> None:
    assert hyplora("report", JOB_ID) == Outcome(0, PAGE, "")


def test_programs_get_the_data(hyplora: Run) -> None:
    outcome = hyplora("report", JOB_ID, "--json")
    assert json.loads(outcome.stdout) == FOUND
    assert "–" in outcome.stdout, "text is not escaped"


def test_a_terminal_gets_the_page_laid_out(hyplora: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    shown = hyplora("report", JOB_ID).stdout
    assert "| --- |" not in shown
    assert "[gsm8k]" in shown, "the page is no markup of the terminal's"


def test_all_files_are_saved(hyplora: Run, service: ScriptedService, tmp_path: Path) -> None:
    service.on("GET", f"{REPORT_PATH}/files", listed("report.md", "a plot.png"))
    service.on("GET", f"{REPORT_PATH}/files/report.md", httpx.Response(200, text=PAGE))
    service.on("GET", f"{REPORT_PATH}/files/a plot.png", httpx.Response(200, content=b"PNG"))

    outcome = hyplora("report", JOB_ID, "-o", tmp_path / "new" / "exam")

    assert outcome.exit_code == 0
    assert "saved 2 files" in outcome.stderr
    saved = {path.name: path.read_bytes() for path in (tmp_path / "new" / "exam").iterdir()}
    assert saved == {"report.md": PAGE.encode(), "a plot.png": b"PNG"}


def test_files_are_not_mixed_with_others(
    hyplora: Run, service: ScriptedService, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").touch()
    outcome = hyplora("report", JOB_ID, "-o", tmp_path)
    assert outcome.exit_code == 1
    assert "not an empty folder" in outcome.stderr
    assert not service.requests


@pytest.mark.parametrize("name", ["../evil.sh", "/etc/evil", "a/b", "..", ""])
def test_a_name_that_leads_elsewhere_is_refused(
    name: str, hyplora: Run, service: ScriptedService, tmp_path: Path
) -> None:
    service.on("GET", f"{REPORT_PATH}/files", listed(name))
    outcome = hyplora("report", JOB_ID, "-o", tmp_path / "exam")
    assert outcome.exit_code == 1
    assert "no name of a file" in outcome.stderr
    assert not (tmp_path / "exam").exists()


def test_a_job_without_a_report_is_told(hyplora: Run, service: ScriptedService) -> None:
    sentence = f"{JOB_ID} is running and has no report: it is written at the end"
    service.on("GET", REPORT_PATH, problem(404, "report-not-found", sentence))
    assert hyplora("report", JOB_ID) == Outcome(1, "", f"error: {sentence}\n")

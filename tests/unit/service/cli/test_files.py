import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.service.cli.conftest import Outcome, ScriptedService, file, job, problem

Run = Callable[..., Outcome]

CONTENT = b'{"instruction": "a", "output": "b"}\n'
FILE = file() | {"sha256": hashlib.sha256(CONTENT).hexdigest(), "size_bytes": len(CONTENT)}
PATH = f"/v1/files/{FILE['id']}"
VALIDATING = FILE | {"status": "validating", "num_rows": None}
INVALID = VALIDATING | {
    "status": "invalid",
    "problem": "line 7, output: is missing",
    "errors": [{"field": "output", "message": "is missing", "line": 7}],
}


def in_turn(*answers: httpx.Response | dict[str, Any]) -> Callable[[httpx.Request], httpx.Response]:
    """Give one answer after the other."""
    left = list(answers)

    def reply(_request: httpx.Request) -> httpx.Response:
        answer = left.pop(0)
        return httpx.Response(200, json=answer) if isinstance(answer, dict) else answer

    return reply


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(CONTENT)
    return path


def test_upload_waits_for_a_long_validation_through_an_outage(
    hyplora: Run, service: ScriptedService, rows: Path
) -> None:
    service.on("POST", "/v1/files", VALIDATING)
    away = problem(503, "database-unavailable", "the database does not answer")
    service.on("GET", PATH, in_turn(VALIDATING, away, VALIDATING, FILE))

    outcome = hyplora("upload", rows)

    assert (outcome.exit_code, outcome.stdout) == (0, f"{FILE['id']}\n")
    assert f"arrived as {FILE['id']}; waiting until its rows are validated" in outcome.stderr
    assert "1,234 rows" in outcome.stderr


def test_submit_shows_the_bad_row_of_a_long_validation_and_queues_nothing(
    hyplora: Run, service: ScriptedService, tmp_path: Path, rows: Path
) -> None:
    spec = tmp_path / "job.yaml"
    spec.write_text("kind: finetune\nname: n\nbase_model: b\ndata:\n  train: rows.jsonl\n")
    service.on("POST", "/v1/files", VALIDATING)
    service.on("GET", PATH, in_turn(VALIDATING, INVALID))
    service.on("POST", "/v1/jobs", job())

    outcome = hyplora("submit", spec)

    assert outcome.exit_code == 1
    assert outcome.stderr.splitlines()[-2:] == [
        f"error: {rows}: line 7, output: is missing",
        f"  {rows}:7: output: is missing",
    ]
    assert not service.bodies("POST", "/v1/jobs")


def test_files_are_listed_with_what_is_wrong_with_them(
    hyplora: Run, service: ScriptedService
) -> None:
    service.on("GET", "/v1/files", {"data": [FILE, VALIDATING, INVALID], "has_more": True})

    outcome = hyplora("files", "--status", "invalid")

    assert outcome.exit_code == 0
    _, ready, validating, invalid = outcome.stdout.splitlines()
    assert "ready" in ready
    assert "1,234" in ready
    assert "validating" in validating
    assert invalid.rstrip().endswith("line 7, output: is missing")
    assert "raise --limit" in outcome.stderr
    assert service.requests[0].url.params["status"] == "invalid"


def test_files_are_listed_as_json(hyplora: Run, service: ScriptedService) -> None:
    service.on("GET", "/v1/files", {"data": [INVALID], "has_more": False})

    (listed,) = json.loads(hyplora("files", "--json").stdout)["data"]

    assert (listed["status"], listed["errors"][0]["line"]) == ("invalid", 7)


def test_a_list_without_files_says_so(hyplora: Run, service: ScriptedService) -> None:
    service.on("GET", "/v1/files", {"data": [], "has_more": False})

    outcome = hyplora("files")

    assert (outcome.exit_code, outcome.stdout, outcome.stderr) == (0, "", "no files\n")


@pytest.mark.parametrize("into_folder", [False, True])
def test_a_file_is_downloaded_to_a_path_or_into_a_folder(
    hyplora: Run, service: ScriptedService, tmp_path: Path, into_folder: bool
) -> None:
    service.on("GET", PATH, FILE)
    service.on("GET", f"{PATH}/content", httpx.Response(200, content=CONTENT))
    folder = tmp_path / "here"
    folder.mkdir()

    outcome = hyplora("files", "download", FILE["id"], folder if into_folder else folder / "mine")

    expected = folder / ("rows.jsonl" if into_folder else "mine")
    assert (outcome.exit_code, outcome.stdout) == (0, f"{expected}\n")
    assert expected.read_bytes() == CONTENT
    assert list(folder.iterdir()) == [expected]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (httpx.Response(200, content=CONTENT[:-9]), "did not arrive as it was uploaded"),
        (problem(410, "file-content-gone", "its bytes are gone"), "its bytes are gone"),
    ],
)
def test_a_download_that_is_not_whole_leaves_nothing(
    hyplora: Run, service: ScriptedService, tmp_path: Path, answer: httpx.Response, message: str
) -> None:
    service.on("GET", PATH, FILE)
    service.on("GET", f"{PATH}/content", answer)
    folder = tmp_path / "here"
    folder.mkdir()

    outcome = hyplora("files", "download", FILE["id"], folder)

    assert outcome.exit_code == 1
    assert message in outcome.stderr
    assert list(folder.iterdir()) == []


def test_a_download_replaces_no_file(hyplora: Run, service: ScriptedService, rows: Path) -> None:
    service.on("GET", PATH, FILE)

    outcome = hyplora("files", "download", FILE["id"], rows)

    assert outcome.exit_code == 1
    assert f"{rows} is there already" in outcome.stderr


@pytest.mark.parametrize("name", ["..", "../../evil", "/etc/evil"])
def test_a_name_from_the_service_leads_out_of_no_folder(
    hyplora: Run, service: ScriptedService, tmp_path: Path, name: str
) -> None:
    service.on("GET", PATH, FILE | {"filename": name})
    service.on("GET", f"{PATH}/content", httpx.Response(200, content=CONTENT))
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)

    hyplora("files", "download", FILE["id"], folder)

    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.parent for path in written} <= {folder, tmp_path / "home"}


def test_a_file_is_deleted(hyplora: Run, service: ScriptedService) -> None:
    service.on("DELETE", PATH, httpx.Response(204))

    outcome = hyplora("files", "delete", FILE["id"])

    assert (outcome.exit_code, outcome.stdout) == (0, f"{FILE['id']} deleted\n")


def test_a_file_in_use_is_not_deleted_and_the_jobs_are_named(
    hyplora: Run, service: ScriptedService
) -> None:
    service.on("DELETE", PATH, problem(409, "file-in-use", "is in use by jobs: job-1"))

    outcome = hyplora("files", "delete", FILE["id"])

    assert (outcome.exit_code, outcome.stdout) == (1, "")
    assert outcome.stderr.endswith("error: is in use by jobs: job-1\n")

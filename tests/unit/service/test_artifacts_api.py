"""The files of a job's run, as the API hands them out."""

import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest

from service import artifacts
from tests.unit.service.stage import Stage


class Usage(NamedTuple):
    free: int


FILES = {
    "data_report.json": b"{}",
    "job.json": b'{"spec": {}}',
    "logs/attempt-1.log": b"first\nsecond\n",
    "plots/deep/er/loss.svg": b"<svg onload='alert(1)'/>",
    "plots/loss.html": b"<script>alert(1)</script>",
    "plots/loss.png": b"\x89PNG",
    "zero.bin": b"",
}


async def with_files(stage: Stage) -> str:
    job_id = await stage.started()
    run_id = stage.run_id(job_id)
    stage.mlflow.files |= {(run_id, path): content for path, content in FILES.items()}
    stage.mlflow.files["another", "secret.txt"] = b"of another run"
    return job_id


async def refused(stage: Stage, path: str) -> tuple[int, str]:
    response = await stage.client.get(path)
    return response.status_code, response.json()["code"]


def leftovers() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("hyplora-artifact-*"))


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


async def test_files_of_all_folders_are_listed_by_path(stage: Stage) -> None:
    job_id = await with_files(stage)

    answer = await stage.get(f"/v1/jobs/{job_id}/artifacts")

    assert {each["path"]: each["size_bytes"] for each in answer["data"]} == {
        path: len(content) for path, content in FILES.items()
    }
    assert [each["path"] for each in answer["data"]] == list(FILES)
    kinds = {each["path"]: each["media_type"] for each in answer["data"]}
    assert kinds["plots/deep/er/loss.svg"] == "image/svg+xml"
    assert kinds["zero.bin"] == "application/octet-stream"
    assert answer["has_more"] is False


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
async def test_files_come_in_pages(stage: Stage, limit: int) -> None:
    job_id = await with_files(stage)
    path = f"/v1/jobs/{job_id}/artifacts?limit={limit}"
    found: list[str] = []
    answer = {"has_more": True}

    while answer["has_more"]:
        answer = await stage.get(f"{path}&after={quote(found[-1])}" if found else path)
        found += [each["path"] for each in answer["data"]]

    assert found == list(FILES)


async def test_every_file_can_be_downloaded_and_leaves_nothing_behind(stage: Stage) -> None:
    job_id = await with_files(stage)

    for path, content in FILES.items():
        response = await stage.client.get(f"/v1/jobs/{job_id}/artifacts/{path}")
        assert response.content == content
        assert response.headers["Content-Length"] == str(len(content))
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
        name = path.rpartition("/")[2]
        assert response.headers["Content-Disposition"] == f'attachment; filename="{name}"'
    assert leftovers() == []


async def test_a_file_is_answered_as_a_whole(stage: Stage) -> None:
    job_id = await with_files(stage)

    response = await stage.client.get(
        f"/v1/jobs/{job_id}/artifacts/logs/attempt-1.log", headers={"Range": "bytes=6-11"}
    )

    assert (response.status_code, response.content) == (200, FILES["logs/attempt-1.log"])
    assert response.headers["Accept-Ranges"] == "none"


@pytest.mark.parametrize(
    "path",
    [
        "..%2fsecret.txt",
        "logs/..%2f..%2fanother/secret.txt",
        "%2e%2e/%2e%2e/etc/passwd",
        "%2fetc%2fpasswd",
        "logs//attempt-1.log",
        "logs/",
        ".%2fjob.json",
        "%252e%252e%252fsecret.txt",
        "..%5csecret.txt",
        "job.json%00",
        "file:%2f%2f%2fetc/passwd",
    ],
)
async def test_a_path_that_could_lead_elsewhere_is_refused(stage: Stage, path: str) -> None:
    job_id = await with_files(stage)

    response = await stage.client.get(f"/v1/jobs/{job_id}/artifacts/{path}")

    assert (response.status_code, response.json()["code"]) == (422, "request-invalid")
    assert response.json()["errors"][0]["field"] == "file_path"


@pytest.mark.parametrize("path", ["secret.txt", "another/secret.txt", "logs", "logs/none", "job"])
async def test_only_files_that_are_listed_are_handed_out(stage: Stage, path: str) -> None:
    job_id = await with_files(stage)

    assert await refused(stage, f"/v1/jobs/{job_id}/artifacts/{path}") == (
        404,
        "artifact-not-found",
    )


async def test_a_job_that_has_not_begun_has_no_files(stage: Stage) -> None:
    job_id = await stage.submit()
    path = f"/v1/jobs/{job_id}/artifacts"

    assert await stage.get(path) == {"data": [], "has_more": False}
    assert await refused(stage, f"{path}/job.json") == (404, "artifact-not-found")


@pytest.mark.parametrize("path", ["", "/job.json"])
async def test_a_run_that_is_gone_and_mlflow_that_is_away_are_told(stage: Stage, path: str) -> None:
    job_id = await with_files(stage)
    stage.mlflow.is_away = True
    away = await refused(stage, f"/v1/jobs/{job_id}/artifacts{path}")
    stage.mlflow.is_away = False
    stage.mlflow.runs.clear()
    gone = await refused(stage, f"/v1/jobs/{job_id}/artifacts{path}")

    assert away == (503, "mlflow-unavailable")
    assert gone == (404, "run-not-found")


async def test_a_listing_that_takes_too_long_is_given_up(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "_TIMEOUT_S", 0.0)
    job_id = await with_files(stage)

    assert (await refused(stage, f"/v1/jobs/{job_id}/artifacts"))[1] == "mlflow-unavailable"


async def test_a_file_for_which_there_is_no_room_is_refused_and_leaves_nothing_behind(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await with_files(stage)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free=5))

    assert (await refused(stage, f"/v1/jobs/{job_id}/artifacts/job.json")) == (507, "storage-full")
    assert leftovers() == []

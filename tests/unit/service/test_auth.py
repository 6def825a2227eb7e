from pathlib import Path

import pytest

from service.app import create_app
from service.auth import read_token
from service.errors import TokenFileError
from tests.unit.service.stage import TOKEN, Stage, make_settings

GUARDED = [
    ("GET", "/v1/jobs"),
    ("POST", "/v1/jobs"),
    ("GET", "/v1/jobs/job-0123456789abcdef"),
    ("POST", "/v1/jobs/job-0123456789abcdef/cancel"),
    ("POST", "/v1/jobs/job-0123456789abcdef/pause"),
    ("POST", "/v1/jobs/job-0123456789abcdef/resume"),
    ("GET", "/v1/jobs/job-0123456789abcdef/events"),
    ("GET", "/v1/jobs/job-0123456789abcdef/logs"),
    ("GET", "/v1/jobs/job-0123456789abcdef/report"),
    ("GET", "/v1/jobs/job-0123456789abcdef/report/files"),
    ("GET", "/v1/jobs/job-0123456789abcdef/report/files/report.json"),
    ("GET", "/v1/jobs/job-0123456789abcdef/trials"),
    ("GET", "/v1/jobs/job-0123456789abcdef/trials/trial-0001"),
    ("POST", "/v1/jobs/job-0123456789abcdef/trials/trial-0001/cancel"),
    ("GET", "/v1/files"),
    ("GET", "/v1/files/file-0123456789abcdef"),
    ("POST", "/v1/files"),
    ("GET", "/v1/info"),
]


@pytest.mark.parametrize("given", ["", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", "Bearer ü"])
async def test_nothing_under_v1_answers_without_the_token(stage: Stage, given: str) -> None:
    headers = {b"Authorization": given.encode()} if given else {}
    del stage.client.headers["Authorization"]

    for method, path in GUARDED:
        response = await stage.client.request(method, path, headers=headers)

        assert response.status_code == 401, path
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert response.headers["Content-Type"] == "application/problem+json"
        assert response.json()["code"] == "unauthorized"


async def test_every_route_under_v1_is_among_those_tested_for_the_token(stage: Stage) -> None:
    described = (await stage.get("/openapi.json"))["paths"]
    named = {
        "job-0123456789abcdef": "{job_id}",
        "file-0123456789abcdef": "{file_id}",
        "report.json": "{name}",
        "trial-0001": "{trial_id}",
    }
    tested = {"/".join(named.get(part, part) for part in path.split("/")) for _, path in GUARDED}

    assert {path for path in described if path.startswith("/v1")} == tested


async def test_probes_answer_without_the_token(stage: Stage) -> None:
    del stage.client.headers["Authorization"]

    assert (await stage.client.get("/healthz")).status_code == 200
    assert (await stage.client.get("/readyz")).status_code == 200


def test_the_token_is_read_without_the_newline_at_its_end(tmp_path: Path) -> None:
    assert read_token(make_settings(tmp_path).token_path) == TOKEN


def test_the_service_does_not_start_without_a_token_file(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    settings.token_path.unlink()

    with pytest.raises(TokenFileError, match="openssl rand"):
        create_app(settings)


def test_the_service_does_not_start_with_an_empty_token(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    settings.token_path.write_text("\n")

    with pytest.raises(TokenFileError, match="is empty"):
        create_app(settings)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_the_service_does_not_start_with_a_token_that_others_can_open(
    tmp_path: Path, mode: int
) -> None:
    settings = make_settings(tmp_path)
    settings.token_path.chmod(mode)

    with pytest.raises(TokenFileError, match="chmod 600"):
        create_app(settings)

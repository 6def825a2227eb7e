import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from service.errors import Problem, ProblemError, UnavailableError, root_cause
from tests.unit.service.stage import Stage
from workers.specs import FailureCode

API_PAGE = Path(__file__).parents[3] / "docs/api.md"


def kinds_of(base: type[ProblemError]) -> Iterator[type[ProblemError]]:
    for kind in base.__subclasses__():
        yield kind
        yield from kinds_of(kind)


PROBLEMS = [kind for kind in kinds_of(ProblemError) if kind is not UnavailableError]


def test_every_kind_of_problem_has_its_own_code() -> None:
    codes = [kind.code for kind in PROBLEMS]

    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("kind", PROBLEMS, ids=lambda kind: kind.code)
def test_every_kind_of_problem_is_in_the_api_page(kind: type[ProblemError]) -> None:
    assert f"| `{kind.code}` | {kind.status} |" in API_PAGE.read_text()


@pytest.mark.parametrize("code", FailureCode)
def test_every_failure_of_a_job_is_in_the_api_page(code: FailureCode) -> None:
    assert f"| `{code}` |" in API_PAGE.read_text()


async def test_a_problem_document_has_the_fields_of_rfc_9457(stage: Stage) -> None:
    response = await stage.client.get("/v1/jobs/nonsense", headers={"X-Request-ID": "abc-1"})

    assert Problem.model_validate(response.json()).model_dump(exclude_defaults=True) == {
        "type": "urn:hyplora:problem:job-not-found",
        "title": "No job has this id",
        "status": 404,
        "detail": "there is no job 'nonsense'; GET /v1/jobs lists them",
        "code": "job-not-found",
        "instance": "urn:hyplora:request:abc-1",
    }


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not-found"),
        ("GET", "/", 404, "not-found"),
        ("DELETE", "/v1/jobs", 405, "method-not-allowed"),
        ("PUT", "/healthz", 405, "method-not-allowed"),
    ],
)
async def test_what_the_framework_refuses_is_a_problem_too(
    stage: Stage, method: str, path: str, status: int, code: str
) -> None:
    response = await stage.client.request(method, path)

    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["code"] == code
    if status == 405:
        allowed = {"/v1/jobs": "GET, POST", "/healthz": "GET"}
        assert response.headers["Allow"] == allowed[path]


async def test_an_error_that_nobody_foresaw_names_the_request_and_shows_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_job_id: str) -> None:
        raise ZeroDivisionError("a secret of the implementation")

    monkeypatch.setattr(stage.parts.jobs, "get", fail)

    response = await stage.client.get("/v1/jobs/job-0123456789abcdef")

    problem = response.json()
    request_id = response.headers["X-Request-ID"]
    assert response.status_code == 500
    assert problem["code"] == "internal"
    assert request_id in problem["detail"]
    assert problem["instance"] == f"urn:hyplora:request:{request_id}"
    assert "secret" not in response.text
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert request_id in record.message
    assert record.exc_info


async def test_a_database_that_does_not_answer_is_a_problem_to_wait_for(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise OperationalError("SELECT", {}, Exception("database is locked"))

    monkeypatch.setattr(AsyncSession, "get", fail)

    response = await stage.client.get("/v1/jobs/job-0123456789abcdef")

    assert response.status_code == 503
    assert response.headers["Retry-After"] == "5"
    assert response.json()["code"] == "database-unavailable"
    assert "locked" not in response.text


@pytest.mark.parametrize("given", ["", "white space", "x" * 65, "line\tbreak"])
async def test_a_request_id_that_is_not_sound_is_replaced(stage: Stage, given: str) -> None:
    response = await stage.client.get("/healthz", headers={"X-Request-ID": given})

    assert response.headers["X-Request-ID"] != given
    assert len(response.headers["X-Request-ID"]) == 16


def test_the_root_of_a_chain_of_errors_is_what_began_it() -> None:
    def fail() -> None:
        try:
            raise ConnectionRefusedError(111, "Connection refused")
        except OSError as error:
            raise RuntimeError("max retries exceeded\nwith much more to say") from error

    with pytest.raises(RuntimeError) as caught:
        fail()

    assert root_cause(caught.value) == "[Errno 111] Connection refused"
    assert root_cause(KeyError()) == "KeyError"

import re
from datetime import timedelta
from pathlib import Path

import pytest

from service.callers import Scope
from service.key_tokens import KeyToken
from service.tables import utc_now
from tests.unit.service.stage import TOKEN, Stage, make_settings

READER = KeyToken("key-00000000000000aa", "R" * 43)
SUBMITTER = KeyToken("key-00000000000000bb", "S" * 43)
NAMES = {
    "job_id": "job-0123456789abcdef",
    "file_id": "file-0123456789abcdef",
    "trial_id": "trial-0001",
    "key_id": "key-0123456789abcdef",
    "fine_tuning_job_id": "job-0123456789abcdef",
    "name": "report.json",
    "file_path": "logs/attempt-1.log",
    "model_name": "sums",
    "model": "sums:1",
    "version": "1",
    "alias": "champion",
}
ADMIN_ONLY = ("/v1/keys", "/v1/audit")


def bearer(token: KeyToken) -> dict[str, str]:
    return {"Authorization": f"Bearer {token.text}"}


async def guarded_routes(stage: Stage) -> list[tuple[str, str]]:
    """Method and path of every route that asks for a key, with names for what is in braces."""
    paths = (await stage.get("/openapi.json"))["paths"]
    return [
        (method.upper(), re.sub(r"\{(\w+)\}", lambda match: NAMES[match[1]], path))
        for path, methods in paths.items()
        for method in methods
        if path.startswith(("/v1", "/openai/v1"))
    ]


@pytest.mark.parametrize(
    "given", ["", "Bearer ", "Bearer wrong", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer ü"]
)
async def test_nothing_under_v1_answers_without_a_key(tmp_path: Path, given: str) -> None:
    async with Stage(make_settings(tmp_path, failures_per_minute=10_000)) as stage:
        routes = await guarded_routes(stage)
        headers = {b"Authorization": given.encode()} if given else {}
        del stage.client.headers["Authorization"]

        for method, path in routes:
            response = await stage.client.request(method, path, headers=headers)

            assert response.status_code == 401, path
            assert response.headers["WWW-Authenticate"] == "Bearer"
            assert response.headers["Content-Type"] == "application/problem+json"
            assert response.json()["code"] == "unauthorized"
        assert len(routes) > 20


async def test_probes_answer_without_a_key(stage: Stage) -> None:
    del stage.client.headers["Authorization"]

    assert (await stage.client.get("/healthz")).status_code == 200
    assert (await stage.client.get("/readyz")).status_code == 200


async def test_a_key_that_may_only_read_changes_nothing(stage: Stage) -> None:
    await stage.admit(READER, Scope.READ)

    for method, path in await guarded_routes(stage):
        response = await stage.client.request(method, path, headers=bearer(READER))

        is_open = method == "GET" and not path.startswith(ADMIN_ONLY)
        assert (response.status_code != 403) == is_open, (method, path)
        if not is_open:
            scope = "admin" if path.startswith(ADMIN_ONLY) else "submit"
            problem = response.json()
            assert problem["code"] == "forbidden"
            assert f"`{scope}`" in problem["detail"]


async def test_a_key_that_may_submit_administers_nothing(stage: Stage) -> None:
    await stage.admit(SUBMITTER, Scope.SUBMIT)

    for method, path in await guarded_routes(stage):
        response = await stage.client.request(method, path, headers=bearer(SUBMITTER))

        assert (response.status_code == 403) == path.startswith(ADMIN_ONLY), (method, path)


async def test_a_key_that_has_expired_is_told_so(stage: Stage) -> None:
    await stage.admit(READER, Scope.READ, expires_at=utc_now() - timedelta(seconds=1))

    response = await stage.client.get("/v1/jobs", headers=bearer(READER))

    assert response.status_code == 401
    assert re.search(r"key-\w+ expired at 20.* UTC; ask an administrator", response.text)


async def test_a_key_that_is_revoked_is_told_so(stage: Stage) -> None:
    await stage.admit(READER, Scope.READ, revoked_at=utc_now())

    response = await stage.client.get("/v1/jobs", headers=bearer(READER))

    assert response.status_code == 401
    assert "was revoked at" in response.json()["detail"]


async def test_a_wrong_secret_is_not_told_what_became_of_the_key(stage: Stage) -> None:
    await stage.admit(READER, Scope.READ, revoked_at=utc_now())
    guess = KeyToken(READER.key_id, "X" * 43)

    response = await stage.client.get("/v1/jobs", headers=bearer(guess))

    assert response.status_code == 401
    assert "not known" in response.json()["detail"]


async def test_a_key_that_asks_too_often_is_told_when_to_come_again(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, requests_per_minute=20, requests_burst=2)
    async with Stage(settings) as stage:
        answers = [await stage.client.get("/v1/jobs") for _ in range(3)]

        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[2].json()["code"] == "rate-limited"
        assert answers[2].headers["Retry-After"] in {"1", "2", "3"}


async def test_an_address_that_guesses_keys_is_stopped_and_valid_keys_are_not(
    tmp_path: Path,
) -> None:
    async with Stage(make_settings(tmp_path, failures_per_minute=3)) as stage:
        await stage.get("/v1/jobs")
        guesses = [KeyToken(f"key-{number:016x}", "X" * 43) for number in range(4)]

        answers = [await stage.client.get("/v1/jobs", headers=bearer(guess)) for guess in guesses]

        assert [answer.status_code for answer in answers] == [401, 401, 401, 429]
        assert int(answers[3].headers["Retry-After"]) >= 1
        assert (await stage.client.get("/v1/jobs")).status_code == 200

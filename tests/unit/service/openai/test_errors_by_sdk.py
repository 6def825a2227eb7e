"""Every refusal is a problem document and also what OpenAI's own client reads."""

import openai
import pytest
from openai import AsyncOpenAI

from service.callers import Scope
from service.key_tokens import KeyToken
from service.rate_limits import RateLimit
from tests.unit.service.openai.sdk import client_of
from tests.unit.service.stage import TOKEN, Stage

READER = KeyToken("key-00000000000000cc", "R" * 43)


async def test_a_refusal_is_a_problem_document_and_has_openais_member(
    stage: Stage, sdk: AsyncOpenAI
) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        await sdk.fine_tuning.jobs.retrieve("job-0000000000000000")

    response = refused.value.response
    problem = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["type"] == "urn:hyplora:problem:job-not-found"
    assert problem["error"] == {
        "message": problem["detail"],
        "type": "invalid_request_error",
        "param": None,
        "code": "job-not-found",
    }
    assert problem["detail"] in str(refused.value)
    assert refused.value.request_id == problem["instance"].rpartition(":")[2]


async def test_the_services_own_api_answers_no_member_of_openais(stage: Stage) -> None:
    response = await stage.client.get("/v1/jobs/job-0000000000000000")

    assert "error" not in response.json()


async def test_a_key_that_is_not_known_is_an_authentication_error(stage: Stage) -> None:
    async with client_of(stage, "sk-of-another-service") as sdk:
        with pytest.raises(openai.AuthenticationError) as refused:
            await sdk.fine_tuning.jobs.list()

    assert (refused.value.code, refused.value.type) == ("unauthorized", "authentication_error")


async def test_a_key_that_may_only_read_lists_and_is_denied_everything_else(stage: Stage) -> None:
    await stage.admit(READER, Scope.READ)
    async with client_of(stage, READER.text) as sdk:
        await sdk.fine_tuning.jobs.list()
        with pytest.raises(openai.PermissionDeniedError) as refused:
            await sdk.fine_tuning.jobs.create(model="tiny", training_file="file-0000000000000000")

    assert (refused.value.code, refused.value.type) == ("forbidden", "permission_error")


async def test_what_is_not_offered_is_not_found(stage: Stage, sdk: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        await sdk.chat.completions.create(model="tiny", messages=[])

    assert refused.value.code == "not-found"
    assert "/openai/v1/chat/completions" in refused.value.message


async def test_a_client_that_asks_too_often_is_told_when_to_ask_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, sdk: AsyncOpenAI
) -> None:
    monkeypatch.setattr(stage.parts.gate, "_requests", RateLimit(1, 1))
    await sdk.fine_tuning.jobs.list()

    with pytest.raises(openai.RateLimitError) as refused:
        await sdk.fine_tuning.jobs.list()

    assert (refused.value.code, refused.value.type) == ("rate-limited", "rate_limit_error")
    assert 0 < int(refused.value.response.headers["retry-after"]) <= 60


async def test_an_unforeseen_error_is_a_server_error(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, sdk: AsyncOpenAI
) -> None:
    monkeypatch.setattr("service.lifecycle.Jobs.page", None)

    with pytest.raises(openai.InternalServerError) as refused:
        await sdk.fine_tuning.jobs.list()

    assert (refused.value.code, refused.value.type) == ("internal", "server_error")


async def test_a_body_that_is_too_large_is_refused_in_openais_form_too(
    stage: Stage, sdk: AsyncOpenAI
) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        await sdk.fine_tuning.jobs.create(model="m" * 2**20, training_file="file-0")

    assert (refused.value.status_code, refused.value.code) == (413, "request-too-large")


async def test_headers_of_organizations_and_projects_are_ignored(stage: Stage) -> None:
    options = {"organization": "org-1", "project": "proj-1"}
    async with client_of(stage, TOKEN, **options) as sdk:
        page = await sdk.fine_tuning.jobs.with_raw_response.list()

    assert page.headers["x-request-id"]

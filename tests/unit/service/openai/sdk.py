"""OpenAI's Python client in front of a stage, and what its answers must be like."""

from typing import Any

import httpx2
from openai import AsyncOpenAI, BaseModel
from pydantic import TypeAdapter, ValidationError

from tests.unit.service.stage import Stage


def client_of(stage: Stage, api_key: str, **options: Any) -> AsyncOpenAI:
    """The client as it comes, but for the network."""
    transport = httpx2.ASGITransport(stage.app, raise_app_exceptions=False)
    return AsyncOpenAI(
        api_key=api_key,
        base_url="http://service/openai/v1",
        http_client=httpx2.AsyncClient(transport=transport),
        **{"max_retries": 0, **options},
    )


def require_form(answer: BaseModel) -> None:
    """Hold an answer to the client's own type, which the client itself does not do."""
    try:
        TypeAdapter(type(answer)).validate_json(answer.model_dump_json(warnings=False), strict=True)
    except ValidationError as error:
        raise AssertionError(f"{type(answer).__name__}: {error}") from error

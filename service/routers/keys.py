"""API keys: make, list, look up, revoke; for administrators."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from service.answers import Page
from service.dependencies import KeysPart
from service.errors import (
    KeyNotFoundError,
    RequestInvalidError,
    RequestTooLargeError,
    SpecInvalidError,
    problems,
)
from service.key_answers import KeyCreate, KeyCreated, KeyRead

router = APIRouter(prefix="/keys", tags=["keys"])


@router.post("", status_code=201, responses=problems(SpecInvalidError, RequestTooLargeError))
async def create_key(body: KeyCreate, keys: KeysPart, response: Response) -> KeyCreated:
    """Make an API key; the answer alone holds it."""
    record, text = await keys.create(body.name, body.project, body.scopes, body.expires_at)
    response.headers["Location"] = f"/v1/keys/{record.id}"
    response.headers["Cache-Control"] = "no-store"
    described = KeyRead.model_validate(record, from_attributes=True)
    return KeyCreated(**described.model_dump(), key=text)


@router.get("", responses=problems(KeyNotFoundError, RequestInvalidError))
async def list_keys(
    keys: KeysPart,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[str | None, Query(description="Last id of the page before.")] = None,
) -> Page[KeyRead]:
    """List API keys of all projects, newest first, with those that are revoked or have expired."""
    found, has_more = await keys.page(limit, after)
    data = [KeyRead.model_validate(key, from_attributes=True) for key in found]
    return Page(data=data, has_more=has_more)


@router.get("/{key_id}", responses=problems(KeyNotFoundError))
async def read_key(key_id: str, keys: KeysPart) -> KeyRead:
    """Look up an API key."""
    return KeyRead.model_validate(await keys.get(key_id), from_attributes=True)


@router.post("/{key_id}/revoke", responses=problems(KeyNotFoundError))
async def revoke_key(key_id: str, keys: KeysPart) -> KeyRead:
    """End an API key for good; every replica refuses it within two seconds."""
    return KeyRead.model_validate(await keys.revoke(key_id), from_attributes=True)

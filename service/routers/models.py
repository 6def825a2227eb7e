"""Registered models: list, promote, follow their lineage, download, delete."""

import re
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Header, Path, Query, Response
from fastapi.responses import StreamingResponse

from jobs.finetune_specs import ALIAS_PATTERN, require_free_alias
from service.answers import Page
from service.dependencies import (
    AdaptersPart,
    LineagesPart,
    ModelChangesPart,
    ModelsPart,
    ModelViewsPart,
)
from service.errors import (
    FieldError,
    MlflowUnavailableError,
    ModelAliasNotFoundError,
    ModelInUseError,
    ModelNotFoundError,
    ModelVersionNotFoundError,
    NoAdapterError,
    PreconditionFailedError,
    ProblemError,
    RequestInvalidError,
    RequestTooLargeError,
    SpecInvalidError,
    StorageFullError,
    problems,
)
from service.model_answers import (
    AliasChange,
    AliasRead,
    LineageRead,
    ModelRead,
    VersionRead,
)
from service.model_changes import alias_etag

router = APIRouter(prefix="/models", tags=["models"])

Selector = Annotated[str, Path(description="Number of the version, or @ and an alias.")]
Alias = Annotated[str, Path(max_length=64)]
IfMatch = Annotated[
    str | None, Header(description="`ETag` of the alias that the client knows; `*` if it exists.")
]
IfNoneMatch = Annotated[str | None, Header(description="`*`: only if the alias does not exist.")]
_TAR = "application/x-tar"
_ARCHIVE: dict[int | str, dict[str, Any]] = {
    200: {"content": {_TAR: {"schema": {"type": "string", "format": "binary"}}}}
}
_ALIAS: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {
            "ETag": {
                "description": "Where the alias points; a change can ask for it with `If-Match`.",
                "schema": {"type": "string"},
            }
        }
    }
}


def _refusals(*more: type[ProblemError]) -> dict[int | str, dict[str, Any]]:
    return problems(ModelNotFoundError, MlflowUnavailableError, *more)


def _version_refusals(*more: type[ProblemError]) -> dict[int | str, dict[str, Any]]:
    return _refusals(ModelVersionNotFoundError, ModelAliasNotFoundError, *more)


@router.get("", responses=problems(MlflowUnavailableError, RequestInvalidError))
async def list_models(
    models: ModelsPart,
    views: ModelViewsPart,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[str | None, Query(description="Last name of the page before.")] = None,
) -> Page[ModelRead]:
    """List registered models by name."""
    found, has_more = await models.page(limit, after)
    return Page(data=[views.model(model) for model in found], has_more=has_more)


@router.get("/{model_name}", responses=_refusals())
async def read_model(model_name: str, models: ModelsPart, views: ModelViewsPart) -> ModelRead:
    """Look up a registered model."""
    return views.model(await models.get(model_name))


@router.delete("/{model_name}", status_code=204, responses=_refusals(ModelInUseError))
async def delete_model(model_name: str, changes: ModelChangesPart) -> None:
    """Delete a registered model with its versions, unless an alias or a live job needs one."""
    await changes.delete_model(model_name)


@router.get("/{model_name}/versions", responses=_refusals(RequestInvalidError))
async def list_versions(
    model_name: str,
    models: ModelsPart,
    views: ModelViewsPart,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[
        int | None, Query(ge=1, lt=10**9, description="Last number of the page before.")
    ] = None,
) -> Page[VersionRead]:
    """List the versions of a registered model, newest first."""
    found, has_more = await models.versions(model_name, limit, after)
    return Page(data=[views.version(version) for version in found], has_more=has_more)


@router.get("/{model_name}/versions/{version}", responses=_version_refusals())
async def read_version(
    model_name: str, version: Selector, models: ModelsPart, views: ModelViewsPart
) -> VersionRead:
    """Look up a version by its number or by an alias."""
    return views.version(await models.version(model_name, version))


@router.delete(
    "/{model_name}/versions/{version}",
    status_code=204,
    responses=_version_refusals(ModelInUseError),
)
async def delete_version(model_name: str, version: Selector, changes: ModelChangesPart) -> None:
    """Delete a version, unless an alias points at it or a live job needs it."""
    await changes.delete_version(model_name, version)


@router.get("/{model_name}/versions/{version}/lineage", responses=_version_refusals())
async def read_lineage(model_name: str, version: Selector, lineages: LineagesPart) -> LineageRead:
    """Answer where a version comes from, and how it was judged, as a graph."""
    return await lineages.of(model_name, version)


@router.get(
    "/{model_name}/versions/{version}/download",
    response_class=Response,
    responses=_ARCHIVE | _version_refusals(NoAdapterError, StorageFullError),
)
async def download_version(
    model_name: str, version: Selector, adapters: AdaptersPart
) -> StreamingResponse:
    """Download the adapter as a tar: its PEFT folder with the tokenizer's files, if it has any.

    Weights are safetensors; the tar of a version is the same, byte for byte, each time.
    """
    archive = await adapters.archive(model_name, version)
    headers = {
        "Content-Length": str(archive.size_bytes),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(archive.filename)}",
        "X-Content-Type-Options": "nosniff",
    }
    return StreamingResponse(archive.pieces(), media_type=_TAR, headers=headers)


@router.get(
    "/{model_name}/aliases/{alias}",
    responses=_ALIAS | _refusals(ModelAliasNotFoundError),
)
async def read_alias(
    model_name: str, alias: Alias, models: ModelsPart, response: Response
) -> AliasRead:
    """Look up where an alias points."""
    version = models.version_of_alias(await models.get(model_name), alias)
    return _with_etag(model_name, alias, version, response)


@router.put(
    "/{model_name}/aliases/{alias}",
    responses=_ALIAS
    | _refusals(
        ModelVersionNotFoundError,
        PreconditionFailedError,
        RequestInvalidError,
        RequestTooLargeError,
        SpecInvalidError,
    ),
)
async def set_alias(
    model_name: str,
    alias: Alias,
    body: AliasChange,
    models: ModelsPart,
    changes: ModelChangesPart,
    response: Response,
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> AliasRead:
    """Promote a version: point an alias at it, wherever it pointed before."""
    _require_alias(alias)
    owner = await changes.set_alias(model_name, alias, body.version, if_match, if_none_match)
    return _with_etag(model_name, alias, models.version_of_alias(owner, alias), response)


@router.delete(
    "/{model_name}/aliases/{alias}",
    status_code=204,
    responses=_refusals(ModelAliasNotFoundError, PreconditionFailedError),
)
async def remove_alias(
    model_name: str, alias: Alias, changes: ModelChangesPart, if_match: IfMatch = None
) -> None:
    """Remove an alias; the version that it pointed at stays."""
    await changes.remove_alias(model_name, alias, if_match)


def _with_etag(name: str, alias: str, version: int, response: Response) -> AliasRead:
    response.headers["ETag"] = alias_etag(version)
    return AliasRead(name=name, alias=alias, version=version)


def _require_alias(alias: str) -> None:
    """Refuse a name that MLflow does not take for an alias."""
    try:
        if re.fullmatch(ALIAS_PATTERN, alias) is None:
            raise ValueError(f"{alias!r} is no alias; give letters, digits, _ and -")
        require_free_alias(alias)
    except ValueError as error:
        fault = FieldError(field="alias", value=alias, message=str(error))
        raise RequestInvalidError(f"alias: {error}", [fault]) from error

"""Registered adapters for OpenAI's clients: look up, list, delete."""

from fastapi import APIRouter

from service.dependencies import ModelChangesPart, ModelsPart
from service.errors import (
    FieldError,
    MlflowUnavailableError,
    ModelAliasNotFoundError,
    ModelInUseError,
    ModelNotFoundError,
    ModelVersionNotFoundError,
    problems,
)
from service.openai.answers import ModelsRead, OpenAiDeletedRead, OpenAiModelRead
from service.openai.model_ids import ModelId, parts_of
from service.openai.views import newest_version, registered_version

router = APIRouter(prefix="/models", tags=["openai"])

_MOST = 10_000
_REFUSALS = problems(
    ModelNotFoundError, ModelVersionNotFoundError, ModelAliasNotFoundError, MlflowUnavailableError
)


@router.get("", responses=problems(MlflowUnavailableError))
async def list_openai_models(models: ModelsPart) -> ModelsRead:
    """List the newest version of each registered model, by name."""
    found, _ = await models.page(_MOST, None)
    return ModelsRead(data=[read for model in found if (read := newest_version(model))])


@router.get("/{model:path}", responses=_REFUSALS)
async def read_openai_model(model: str, models: ModelsPart) -> OpenAiModelRead:
    """Look up an adapter by `NAME:VERSION` or `NAME@ALIAS`."""
    name, selector = _parts(model)
    return registered_version(await models.version(name, selector))


@router.delete("/{model:path}", responses=_REFUSALS | problems(ModelInUseError))
async def delete_openai_model(model: str, changes: ModelChangesPart) -> OpenAiDeletedRead:
    """Delete an adapter, unless an alias points at it or a live job needs it."""
    name, selector = _parts(model)
    number = await changes.delete_version(name, selector)
    return OpenAiDeletedRead(id=str(ModelId(name, number)), object="model")


def _parts(model: str) -> tuple[str, str]:
    if (parts := parts_of(model)) is not None:
        return parts
    message = "adapters are named NAME:VERSION or NAME@ALIAS"
    raise ModelNotFoundError(
        f"there is no adapter {model!r}; {message}", [FieldError(field="model", message=message)]
    )

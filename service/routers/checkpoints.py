"""The checkpoints of a job."""

from typing import Annotated

from fastapi import APIRouter, Query

from service.answers import Page
from service.dependencies import CheckpointsPart
from service.errors import (
    CheckpointNotFoundError,
    JobNotFoundError,
    MlflowUnavailableError,
    RequestInvalidError,
    RunNotFoundError,
    problems,
)
from service.run_answers import CheckpointRead

router = APIRouter(prefix="/jobs/{job_id}/checkpoints", tags=["jobs"])

_Checkpoints = Page[CheckpointRead]
_REFUSALS = (
    JobNotFoundError,
    CheckpointNotFoundError,
    RunNotFoundError,
    RequestInvalidError,
    MlflowUnavailableError,
)


@router.get("", responses=problems(*_REFUSALS))
async def list_checkpoints(
    job_id: str,
    checkpoints: CheckpointsPart,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(description="Last id of the page before.")] = None,
) -> _Checkpoints:
    """List the checkpoints that a fine-tune has stored, newest first, also those removed since."""
    found, has_more = await checkpoints.page(job_id, limit, after)
    data = [CheckpointRead.model_validate(each, from_attributes=True) for each in found]
    return _Checkpoints(data=data, has_more=has_more)

"""The files that are kept with a job's MLflow run."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from service.answers import Page
from service.dependencies import ArtifactsPart
from service.downloads import MEDIA_TYPES, LentFileResponse, media_type
from service.errors import (
    ArtifactNotFoundError,
    JobNotFoundError,
    MlflowUnavailableError,
    RequestInvalidError,
    RunNotFoundError,
    StorageFullError,
    problems,
)
from service.run_answers import ArtifactRead

router = APIRouter(prefix="/jobs/{job_id}/artifacts", tags=["jobs"])

_Files = Page[ArtifactRead]
_REFUSALS = (JobNotFoundError, RunNotFoundError, RequestInvalidError, MlflowUnavailableError)
_FILE: dict[int | str, dict[str, Any]] = {
    200: {"content": {each: {"schema": {}} for each in MEDIA_TYPES}}
}


@router.get("", responses=problems(*_REFUSALS))
async def list_artifacts(
    job_id: str,
    artifacts: ArtifactsPart,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    after: Annotated[
        str | None, Query(max_length=1000, description="Last path of the page before.")
    ] = None,
) -> _Files:
    """List the files of a job's MLflow run, those in folders included, by path."""
    found, has_more = await artifacts.page(job_id, limit, after)
    data = [
        ArtifactRead(path=each.path, size_bytes=each.size_bytes, media_type=media_type(each.name))
        for each in found
    ]
    return _Files(data=data, has_more=has_more)


@router.get(
    "/{file_path:path}",
    response_class=Response,
    responses=_FILE | problems(*_REFUSALS, ArtifactNotFoundError, StorageFullError),
)
async def read_artifact(job_id: str, file_path: str, artifacts: ArtifactsPart) -> Response:
    """Download one of the files that are listed, as an attachment."""
    lent = await artifacts.fetch(job_id, file_path)
    return LentFileResponse(lent.path, lent.lease)

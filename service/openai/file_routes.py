"""Data sets for OpenAI's clients: upload, look up, list, download, delete."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from service.dependencies import FilesPart
from service.errors import (
    DataFileNotFoundError,
    DatasetInvalidError,
    FileContentGoneError,
    FileInUseError,
    JobNotFoundError,
    MlflowUnavailableError,
    RequestInvalidError,
    RunNotFoundError,
    StorageFullError,
    StorageUnavailableError,
    UploadMalformedError,
    UploadTooLargeError,
    problems,
)
from service.multipart import Upload
from service.openai.answers import FileObjectRead, OpenAiDeletedRead, OpenAiPage
from service.openai.result_files import ResultFilesPart, is_result_file
from service.openai.views import file_object
from service.routers.file_content import FileContent
from service.routers.files import UPLOAD_FORM

router = APIRouter(prefix="/files", tags=["openai"])

_MOST = 10_000
_MISSING = (
    DataFileNotFoundError,
    JobNotFoundError,
    RunNotFoundError,
    MlflowUnavailableError,
)
_BYTES: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    }
}


@router.post(
    "",
    openapi_extra=UPLOAD_FORM,
    responses=problems(
        UploadTooLargeError,
        UploadMalformedError,
        DatasetInvalidError,
        StorageFullError,
        StorageUnavailableError,
    ),
)
async def create_openai_file(request: Request, files: FilesPart) -> FileObjectRead:
    """Take in a data set; one whose rows take long to validate is `uploaded`, then `processed`."""
    upload = Upload(request.headers.get("content-type"), request.stream())
    filename = await upload.open()
    return file_object(await files.add(filename, upload.content()))


@router.get("", responses=problems(DataFileNotFoundError, RequestInvalidError))
async def list_openai_files(
    files: FilesPart,
    limit: Annotated[int, Query(ge=1, le=_MOST)] = _MOST,
    after: Annotated[str | None, Query(description="Last id of the page before.")] = None,
    order: Annotated[Literal["desc"], Query(description="Newest first, always.")] = "desc",
    purpose: Annotated[str, Query(description="There are none but `fine-tune`.")] = "fine-tune",
) -> OpenAiPage[FileObjectRead]:
    """List data sets, newest first."""
    if purpose != "fine-tune":
        return OpenAiPage.of([], has_more=False)
    found, has_more = await files.page(limit, after)
    return OpenAiPage.of([file_object(file) for file in found], has_more)


@router.get("/{file_id}", responses=problems(*_MISSING))
async def read_openai_file(
    file_id: str, files: FilesPart, results: ResultFilesPart
) -> FileObjectRead:
    """Look up a data set, or what a job has measured."""
    if is_result_file(file_id):
        return (await results.read(file_id))[0]
    return file_object(await files.get(file_id))


@router.get(
    "/{file_id}/content",
    response_class=Response,
    responses=_BYTES | problems(*_MISSING, FileContentGoneError, StorageUnavailableError),
)
async def read_openai_file_content(
    file_id: str, files: FilesPart, results: ResultFilesPart
) -> Response:
    """Download a data set as it was uploaded, or what a job has measured as CSV."""
    if is_result_file(file_id):
        _, table = await results.read(file_id)
        return Response(table, media_type="application/octet-stream")
    file, content = await files.open(file_id)
    return FileContent(file, content, asked_range=None, if_range=None)


@router.delete("/{file_id}", responses=problems(DataFileNotFoundError, FileInUseError))
async def delete_openai_file(file_id: str, files: FilesPart) -> OpenAiDeletedRead:
    """Delete a data set that no job needs any more."""
    await files.delete(file_id)
    return OpenAiDeletedRead(id=file_id, object="file")

"""Data sets: upload, look up, list, download, delete."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response

from service.answers import FileRead, Page
from service.dependencies import FilesPart, ViewsPart
from service.errors import (
    DataFileNotFoundError,
    DatasetInvalidError,
    FileContentGoneError,
    FileInUseError,
    RangeNotSatisfiableError,
    RequestInvalidError,
    StorageFullError,
    StorageUnavailableError,
    UploadMalformedError,
    UploadTooLargeError,
    problems,
)
from service.file_states import FileStatus
from service.multipart import Upload
from service.routers.file_content import FileContent

router = APIRouter(prefix="/files", tags=["files"])

_BYTES: dict[str, Any] = {
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
}
_CONTENT: dict[int | str, dict[str, Any]] = {
    200: {
        **_BYTES,
        "headers": {"ETag": {"description": "The digest.", "schema": {"type": "string"}}},
    },
    206: {**_BYTES, "description": "The part that `Range` asks for."},
}

UPLOAD_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": (
                                "JSON lines, plain or gzip, or Parquet: instructions, "
                                "conversations, or prompts with completions; in JSON "
                                "lines also questions with an answer to be judged by."
                            ),
                        },
                        "purpose": {"type": "string", "enum": ["fine-tune"]},
                    },
                }
            }
        },
    }
}


@router.post(
    "",
    status_code=201,
    openapi_extra=UPLOAD_FORM,
    responses=problems(
        UploadTooLargeError,
        UploadMalformedError,
        DatasetInvalidError,
        StorageFullError,
        StorageUnavailableError,
    ),
)
async def create_file(request: Request, files: FilesPart, views: ViewsPart) -> FileRead:
    """Take in a data set and validate every row.

    One that takes long is answered as `validating`, and is `ready` or `invalid` in the end.
    """
    upload = Upload(request.headers.get("content-type"), request.stream())
    filename = await upload.open()
    return views.file(await files.add(filename, upload.content()))


@router.get("", responses=problems(DataFileNotFoundError, RequestInvalidError))
async def list_files(
    files: FilesPart,
    views: ViewsPart,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[str | None, Query(description="Last id of the page before.")] = None,
    status: FileStatus | None = None,
) -> Page[FileRead]:
    """List data sets, newest first."""
    found, has_more = await files.page(limit, after, status)
    return Page(data=[views.file(file) for file in found], has_more=has_more)


@router.get("/{file_id}", responses=problems(DataFileNotFoundError))
async def read_file(file_id: str, files: FilesPart, views: ViewsPart) -> FileRead:
    """Look up a data set."""
    return views.file(await files.get(file_id))


@router.get(
    "/{file_id}/content",
    response_class=Response,
    responses=_CONTENT
    | problems(
        DataFileNotFoundError,
        FileContentGoneError,
        RangeNotSatisfiableError,
        StorageUnavailableError,
    ),
)
async def read_file_content(
    file_id: str,
    files: FilesPart,
    asked_range: Annotated[
        str | None, Header(alias="Range", description="A part, as in `bytes=0-1023`.")
    ] = None,
    if_range: Annotated[
        str | None, Header(description="`ETag` of the file of which the part is wanted.")
    ] = None,
) -> FileContent:
    """Download a data set as it was uploaded."""
    file, content = await files.open(file_id)
    try:
        return FileContent(file, content, asked_range, if_range)
    except RangeNotSatisfiableError:
        content.close()
        raise


@router.delete(
    "/{file_id}", status_code=204, responses=problems(DataFileNotFoundError, FileInUseError)
)
async def delete_file(file_id: str, files: FilesPart) -> None:
    """Delete a data set that no job needs any more: each that names it has ended."""
    await files.delete(file_id)

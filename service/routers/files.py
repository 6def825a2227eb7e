"""Data sets: upload, look up, list."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from service.answers import FileRead, Page
from service.dependencies import FilesPart, ViewsPart
from service.errors import (
    DataFileNotFoundError,
    DatasetInvalidError,
    RequestInvalidError,
    StorageFullError,
    UploadMalformedError,
    UploadTooLargeError,
    problems,
)
from service.multipart import Upload

router = APIRouter(prefix="/files", tags=["files"])

_FORM: dict[str, Any] = {
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
    openapi_extra=_FORM,
    responses=problems(
        UploadTooLargeError, UploadMalformedError, DatasetInvalidError, StorageFullError
    ),
)
async def create_file(request: Request, files: FilesPart, views: ViewsPart) -> FileRead:
    """Take in a data set; every row is validated before the answer."""
    upload = Upload(request.headers.get("content-type"), request.stream())
    filename = await upload.open()
    return views.file(await files.add(filename, upload.content()))


@router.get("", responses=problems(DataFileNotFoundError, RequestInvalidError))
async def list_files(
    files: FilesPart,
    views: ViewsPart,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[str | None, Query(description="Last id of the page before.")] = None,
) -> Page[FileRead]:
    """List data sets, newest first."""
    found, has_more = await files.page(limit, after)
    return Page(data=[views.file(file) for file in found], has_more=has_more)


@router.get("/{file_id}", responses=problems(DataFileNotFoundError))
async def read_file(file_id: str, files: FilesPart, views: ViewsPart) -> FileRead:
    """Look up a data set."""
    return views.file(await files.get(file_id))

"""What a job found: its report as data or as a page, with plots and tables."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Header, Query, Response

from service.answers import Page, ReportFileRead
from service.dependencies import ReportsPart
from service.downloads import HARMLESS_HEADERS, MEDIA_TYPES, media_type
from service.errors import (
    JobNotFoundError,
    MlflowUnavailableError,
    ReportFileNotFoundError,
    ReportNotFoundError,
    RequestInvalidError,
    problems,
)
from service.reports import ReportFormat

router = APIRouter(prefix="/jobs/{job_id}/report", tags=["jobs"])

_REFUSALS = (JobNotFoundError, ReportNotFoundError, MlflowUnavailableError)
_REPORT: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "text/markdown": {"schema": {"type": "string"}},
        }
    }
}
_FILE: dict[int | str, dict[str, Any]] = {
    200: {"content": {each: {"schema": {}} for each in MEDIA_TYPES}}
}


@router.get(
    "",
    response_class=Response,
    responses=_REPORT | problems(*_REFUSALS, ReportFileNotFoundError, RequestInvalidError),
)
async def read_report(
    job_id: str,
    reports: ReportsPart,
    form: Annotated[
        ReportFormat | None, Query(alias="format", description="By default as `Accept` says.")
    ] = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """Read what a job found, as data; with `Accept: text/markdown` as a page for people."""
    chosen = form or ("markdown" if "text/markdown" in accept else "json")
    kind = media_type({"json": "report.json", "markdown": "report.md"}[chosen])
    return Response(await reports.read(job_id, chosen), media_type=kind, headers=HARMLESS_HEADERS)


@router.get("/files", responses=problems(*_REFUSALS))
async def list_report_files(job_id: str, reports: ReportsPart) -> Page[ReportFileRead]:
    """List the files of a report: itself, its plots and its tables."""
    files = await reports.files(job_id)
    return Page(
        data=[
            ReportFileRead(
                name=file.name, size_bytes=file.size_bytes, media_type=media_type(file.name)
            )
            for file in files
        ]
    )


@router.get(
    "/files/{name}",
    response_class=Response,
    responses=_FILE | problems(*_REFUSALS, ReportFileNotFoundError),
)
async def read_report_file(job_id: str, name: str, reports: ReportsPart) -> Response:
    """Download one of the files that are listed."""
    content = await reports.read_file(job_id, name)
    disposition = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}"}
    return Response(content, media_type=media_type(name), headers=HARMLESS_HEADERS | disposition)

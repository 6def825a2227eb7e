"""Commands about data sets that were uploaded: list, download, delete."""

import hashlib
import secrets
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from service.answers import FileRead
from service.cli.console import note, open_console, result
from service.cli.endpoint import Url, connect
from service.cli.errors import CliError
from service.cli.job_commands import AsJson
from service.client import Client
from service.file_states import FileStatus

FileId = Annotated[
    str, typer.Argument(metavar="FILE", help="Id of the data set.", show_default=False)
]

files = typer.Typer(name="files", help="List data sets; download or delete one.")


@files.callback(invoke_without_command=True)
def list_files(
    context: typer.Context,
    status: Annotated[
        FileStatus | None, typer.Option(help="Only those in this state.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="Most to list.")] = 20,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """List uploaded data sets, newest first; `download` and `delete` are about one."""
    if context.invoked_subcommand is not None:
        return
    with connect(url) as client:
        page = client.list_files(limit=limit, status=status)
    if as_json:
        result(page.model_dump_json(indent=2))
        return
    if page.data:
        open_console().print(_table(page.data))
    else:
        note("no files")
    if page.has_more:
        note("there are older files: raise --limit to see more")


@files.command("download")
def download_file(
    file_id: FileId,
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="File that is not there yet, or a folder to put it in.",
            show_default=False,
        ),
    ],
    url: Url = None,
) -> None:
    """Download a data set as it was uploaded."""
    with connect(url) as client:
        file = client.get_file(file_id)
        target = path / Path(file.filename).name if path.is_dir() else path
        if target.exists():
            raise CliError(f"{target} is there already; name another file, or remove it")
        _download(client, file, target)
    note(f"downloaded {file.size_bytes:,} bytes")
    result(str(target))


@files.command("delete")
def delete_file(file_id: FileId, url: Url = None) -> None:
    """Delete a data set that no job needs any more."""
    with connect(url) as client:
        client.delete_file(file_id)
    result(f"{file_id} deleted")


def _download(client: Client, file: FileRead, target: Path) -> None:
    """Write a file that has its name only when it is complete."""
    part = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}")
    try:
        with part.open("x+b") as arriving:
            client.download_file(file.id, arriving)
            arriving.seek(0)
            digest = hashlib.file_digest(arriving, "sha256").hexdigest()
        if digest != file.sha256:
            raise CliError(f"{file.id} did not arrive as it was uploaded; download it again")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _table(found: list[FileRead]) -> Table:
    table = Table("file", "name", "status", "rows", "bytes", "uploaded", "problem", box=None)
    for file in found:
        table.add_row(
            file.id,
            file.filename,
            file.status,
            f"{file.num_rows:,}" if file.num_rows is not None else "",
            f"{file.size_bytes:,}",
            f"{file.created_at.astimezone():%Y-%m-%d %H:%M}",
            file.problem or "",
        )
    return table

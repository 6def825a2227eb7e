"""The command that shows what a job found."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown

from service.cli.adapters import require_empty
from service.cli.console import note, open_console, result
from service.cli.endpoint import Url, connect
from service.cli.errors import CliError
from service.cli.job_commands import AsJson, JobId
from service.client import Client


def report(
    job_id: JobId,
    folder: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FOLDER",
            help="Save the report with its plots and tables there; new or empty.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Print what a search, an evaluation, a comparison or an analysis found.

    A fine-tune has a report if its spec has `analysis`.
    """
    if folder is not None:
        require_empty(folder)
    with connect(url) as client:
        if as_json:
            result(json.dumps(client.report(job_id), indent=2, ensure_ascii=False))
        else:
            _print_page(client.report_page(job_id))
        if folder is not None:
            _save(client, job_id, folder)


def _print_page(page: str) -> None:
    console = open_console()
    if console.is_terminal:
        console.print(Markdown(page))
    else:
        result(page.rstrip())


def _save(client: Client, job_id: str, folder: Path) -> None:
    names = [file.name for file in client.list_report_files(job_id).data]
    for name in names:
        if name != Path(name).name or name in {"", ".."}:
            raise CliError(f"the service names a file {name!r}, which is no name of a file")
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(client.report_file(job_id, name))
    note(f"saved {len(names)} files in {folder}: {', '.join(names)}")

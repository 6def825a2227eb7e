"""Commands about what a job's run has left: metrics and files."""

import secrets
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer
from rich.table import Table

from service.cli.console import note, open_console, result
from service.cli.endpoint import Url, connect
from service.cli.errors import CliError
from service.cli.job_commands import AsJson, JobId
from service.cli.sparkline import sparkline
from service.client import Client
from service.metric_answers import SeriesRead

_DRAWN_POINTS = 200


def metrics(
    job_id: JobId,
    keys: Annotated[
        list[str] | None,
        typer.Option("--key", metavar="KEY", help="A metric; may be repeated.", show_default=False),
    ] = None,
    trial: Annotated[
        str | None,
        typer.Option(help="Of a search a trial, of a comparison a training.", show_default=False),
    ] = None,
    max_points: Annotated[
        int | None,
        typer.Option(
            min=10, max=5000, help="Most points of a series with --json.", show_default="500"
        ),
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Show a job's metrics: how each went, its extremes and its last value."""
    points = max_points or (500 if as_json else _DRAWN_POINTS)
    with connect(url) as client:
        page = client.runs.metrics(job_id, keys or (), trial=trial, max_points=points, limit=50)
    if as_json:
        result(page.model_dump_json(indent=2))
        return
    if page.data:
        open_console().print(_metrics_table(page.data))
    else:
        note("no metrics yet")
    if page.has_more:
        note(f"these are 50 of {len(page.names)}; name others by --key")
    if any(series.is_sampled for series in page.data):
        note("~ of a long series MLflow has sampled the points; with a single --key, it may not")


def artifacts(
    job_id: JobId,
    path: Annotated[
        str | None,
        typer.Argument(metavar="PATH", help="The file to download.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Where to, or a folder to put it in; by default here.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """List the files of a job's run, or download one."""
    with connect(url) as client:
        if path is not None:
            target = _target(path, output)
            _download(client, job_id, path, target)
            result(str(target))
            return
        page = client.runs.artifacts(job_id, limit=1000)
    if as_json:
        result(page.model_dump_json(indent=2))
        return
    table = Table("file", "bytes", "type", box=None)
    for file in page.data:
        table.add_row(file.path, f"{file.size_bytes:,}", file.media_type)
    if page.data:
        open_console().print(table)
    else:
        note("no files yet")
    if page.has_more:
        note("there are more than 1000 files; these are the first ones")


def _metrics_table(found: list[SeriesRead]) -> Table:
    table = Table(box=None)
    for name in ("metric", "course"):
        table.add_column(name, no_wrap=True)
    for name in ("steps", "least", "largest", "last", "not finite"):
        table.add_column(name, justify="right", no_wrap=True)
    for series in found:
        finite = [value for value in series.values if value is not None]
        last = _last_text(series)
        table.add_row(
            series.key,
            sparkline(series.values),
            f"{'~' if series.is_sampled else ''}{series.num_points:,}",
            f"{min(finite):.4g}" if finite else "",
            f"{max(finite):.4g}" if finite else "",
            last,
            f"{series.num_not_finite:,}" if series.num_not_finite else "",
        )
    return table


def _last_text(series: SeriesRead) -> str:
    if not series.values:
        return ""
    last = series.values[-1]
    return series.not_finite[-1].value if last is None else f"{last:.4g}"


def _target(path: str, output: Path | None) -> Path:
    target = output if output is not None else Path()
    if target.is_dir():
        target /= PurePosixPath(path).name
    if target.exists():
        raise CliError(f"{target} is there already; name another file with -o, or remove it")
    return target


def _download(client: Client, job_id: str, path: str, target: Path) -> None:
    """Write a file that has its name only when it is complete."""
    part = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}")
    try:
        with part.open("xb") as arriving:
            client.runs.download(job_id, path, arriving)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)

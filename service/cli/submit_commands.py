"""Commands that hand rows and jobs in: submit, rerun and upload."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.progress import open as open_with_progress

from jobs.search_specs import SearchSpec
from service.answers import DryRunRead, FileRead, JobRead
from service.cli.console import note, open_console, open_note_console, result
from service.cli.dry_run_view import dry_run_view
from service.cli.endpoint import Url, connect
from service.cli.errors import CliError
from service.cli.job_commands import JobId
from service.cli.job_ending import follow_to_the_end
from service.cli.problems import fault_lines, problem_text
from service.cli.spec_file import (
    SpecFile,
    local_data,
    read_spec_file,
    with_file_ids,
    with_overrides,
)
from service.client import Client, ProblemError
from service.errors import FieldError
from service.file_states import FileStatus

Follow = Annotated[bool, typer.Option("--follow", "-f", help="Show the job until it ends.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY.PATH=VALUE",
        help="Override a field, as in training.max_steps=50; may be repeated.",
    ),
]


def submit(
    file: Annotated[
        Path, typer.Argument(help="Job spec, YAML or JSON.", metavar="FILE", show_default=False)
    ],
    follow: Follow = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Queue nothing; show steps, sizes, memory and whether the cluster can ever place "
            "the job. Local files are uploaded all the same, since the cluster reads the rows.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: print JSON.")] = False,
    set_: Overrides = None,
    url: Url = None,
) -> None:
    """Submit a job and print its id.

    Where a spec names rows (data.train, data.validation, data.evaluation_sets, data and shots of
    tasks, data of an analysis), it may name local files: they are uploaded first.
    With --follow the exit code is 0 if the job succeeded, 1 if it failed, 3 if it was cancelled.
    With --dry-run it is 0 if the cluster can place the job, 1 if it cannot or the job would fail.
    """
    _require_one_purpose(follow, dry_run, as_json)
    spec = with_overrides(read_spec_file(file), set_ or ())
    with connect(url) as client:
        with _explained_by(spec):
            if dry_run:
                _show_dry_run(client, spec, as_json)
            job = client.submit_job(_with_uploads(client, spec).document)
        _tell(client, job, follow)


def rerun(
    job_id: JobId,
    set_: Overrides = None,
    follow: Follow = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Queue nothing; show steps, sizes, memory and whether the cluster can ever place "
            "the job.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: print JSON.")] = False,
    url: Url = None,
) -> None:
    """Submit a new job of another's spec, whatever became of that, and print its id.

    A value for rows may be a local file, which is uploaded first. --set adapter.method=… begins the
    adapter anew. Exit codes are those of `submit`.
    """
    _require_one_purpose(follow, dry_run, as_json)
    overrides = with_overrides(SpecFile(Path(f"spec of {job_id}"), {}, {}), set_ or ())
    with connect(url) as client:
        with _explained_by(overrides):
            document = _with_uploads(client, overrides).document
            if dry_run:
                note("asking the cluster; this takes a moment")
                found = client.dry_run_again(job_id, document)
                if client.get_job(job_id).kind == "search":
                    note("of a search, what follows is about one trial")
                _show_found(found, as_json)
            job = client.rerun_job(job_id, document)
        _tell(client, job, follow)


def upload(
    file: Annotated[
        Path,
        typer.Argument(
            help="Rows: JSON lines, plain or gzip, or Parquet.",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ],
    url: Url = None,
) -> None:
    """Upload a data set and print its file id.

    A row has instruction, output and perhaps input; or messages; or prompt and completion.
    """
    with connect(url) as client:
        result(_upload(client, file).id)


def _require_one_purpose(follow: bool, dry_run: bool, as_json: bool) -> None:
    if follow and dry_run:
        raise typer.BadParameter("--dry-run leaves no job to --follow; give one of them")
    if as_json and not dry_run:
        raise typer.BadParameter("--json needs --dry-run; otherwise the id alone is printed")


def _tell(client: Client, job: JobRead, follow: bool) -> None:
    """Print a new job's id, and follow it if that is wanted."""
    result(job.id)
    if follow:
        follow_to_the_end(client, job.id)
    note(f"{job.status}; see it with: hyplora follow {job.id}")


def _with_uploads(client: Client, spec: SpecFile) -> SpecFile:
    """Upload the local files that a spec names and put their ids in."""
    paths = local_data(spec)
    # Each once, so that the service sees where two fields name the same rows.
    ids = {path: _upload(client, path).id for path in dict.fromkeys(paths.values())}
    return with_file_ids(spec, {field: ids[path] for field, path in paths.items()})


def _upload(client: Client, path: Path) -> FileRead:
    console = open_note_console()
    try:
        with open_with_progress(
            path,
            "rb",
            description=path.name,
            console=console,
            transient=True,
            disable=not console.is_terminal,
        ) as rows:
            uploaded = client.upload_file(rows, path.name)
    except ProblemError as error:
        text = problem_text(error, lambda fault: _place_of_row(path, fault))
        raise CliError(f"{path}: {text}") from error
    if uploaded.status is FileStatus.VALIDATING:
        note(f"{path} has arrived as {uploaded.id}; waiting until its rows are validated")
        uploaded = client.wait_for_file(uploaded.id)
    if uploaded.status is FileStatus.INVALID:
        rows_at_fault = fault_lines(uploaded.errors, lambda fault: _place_of_row(path, fault))
        raise CliError("\n".join([f"{path}: {uploaded.problem}", *rows_at_fault]))
    note(f"uploaded {path}: {uploaded.num_rows:,} rows, {uploaded.id}")
    return uploaded


def _place_of_row(path: Path, fault: FieldError) -> str:
    return f"{path}:{fault.line}" if fault.line else ""


def _show_dry_run(client: Client, spec: SpecFile, as_json: bool) -> NoReturn:
    """Show what a job would come to and exit by whether it can be placed."""
    document = _with_uploads(client, spec).document
    note("asking the cluster; this takes a moment")
    found = client.dry_run(document)
    search = SearchSpec.model_validate(document) if document.get("kind") == "search" else None
    _show_found(found, as_json, search)


def _show_found(found: DryRunRead, as_json: bool, search: SearchSpec | None = None) -> NoReturn:
    if as_json:
        result(found.model_dump_json(indent=2))
    else:
        open_console().print(dry_run_view(found, search), soft_wrap=True)
    raise typer.Exit(0 if found.placement.possible else 1)


@contextmanager
def _explained_by(spec: SpecFile) -> Iterator[None]:
    """Say which line of the user's file each field at fault stands in."""
    try:
        yield
    except ProblemError as error:
        if not error.problem.errors:
            raise
        raise CliError(problem_text(error, lambda fault: spec.place_of(fault.field))) from error

"""Commands about jobs and their data: submit, show, follow, pause, resume, cancel and the like."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.progress import open as open_with_progress

from jobs.search_specs import SearchSpec
from service.answers import FileRead, JobRead
from service.cli.console import note, open_console, open_note_console, result
from service.cli.dry_run_view import dry_run_view
from service.cli.endpoint import Url, connect
from service.cli.errors import CliError
from service.cli.follow import follow_job, resume_command
from service.cli.job_views import job_view, jobs_table
from service.cli.problems import problem_text
from service.cli.spec_file import (
    SpecFile,
    local_data,
    read_spec_file,
    with_file_ids,
    with_overrides,
)
from service.cli.trial_views import state_text, trial_line
from service.client import Client, ClientError, ProblemError
from service.states import JobStatus

JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_EXIT_CODES = {"succeeded": 0, "failed": 1, "cancelled": 3}
_INTERRUPTED = 130


def submit(
    file: Annotated[
        Path, typer.Argument(help="Job spec, YAML or JSON.", metavar="FILE", show_default=False)
    ],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show the job until it ends.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Queue nothing; show steps, sizes, memory and whether the cluster can ever place "
            "the job. Local files are uploaded all the same, since the cluster reads the rows.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: print JSON.")] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY.PATH=VALUE",
            help="Override a field, as in training.max_steps=50; may be repeated.",
        ),
    ] = None,
    url: Url = None,
) -> None:
    """Submit a job and print its id.

    Where a spec names rows (data.train, data.validation, data.evaluation_sets, data and shots of
    tasks, data of an analysis), it may name local files: they are uploaded first.
    With --follow the exit code is 0 if the job succeeded, 1 if it failed, 3 if it was cancelled.
    With --dry-run it is 0 if the cluster can place the job, 1 if it cannot or the job would fail.
    """
    if follow and dry_run:
        raise typer.BadParameter("--dry-run leaves no job to --follow; give one of them")
    if as_json and not dry_run:
        raise typer.BadParameter("--json needs --dry-run; otherwise submit prints the id alone")
    spec = with_overrides(read_spec_file(file), set_ or ())
    with connect(url) as client:
        with _explained_by(spec):
            if dry_run:
                _show_dry_run(client, spec, as_json)
            job = client.submit_job(_with_uploads(client, spec).document)
        result(job.id)
        if follow:
            _follow_to_the_end(client, job.id)
        note(f"{job.status}; see it with: hyplora follow {job.id}")


def jobs(
    status: Annotated[
        JobStatus | None, typer.Option(help="Only jobs in this state.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="Most jobs to list.")] = 20,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """List jobs, newest first."""
    with connect(url) as client:
        page = client.list_jobs(limit=limit, status=status)
    if as_json:
        result(page.model_dump_json(indent=2))
        return
    if page.data:
        open_console().print(jobs_table(page.data))
    else:
        note("no jobs")
    if page.has_more:
        note("there are older jobs: raise --limit to see more")


def show(job_id: JobId, as_json: AsJson = False, url: Url = None) -> None:
    """Show everything about a job."""
    with connect(url) as client:
        job = client.get_job(job_id)
    if as_json:
        result(job.model_dump_json(indent=2))
    else:
        open_console().print(job_view(job), soft_wrap=True)


def logs(
    job_id: JobId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job ends.")
    ] = False,
    attempt: Annotated[
        int | None,
        typer.Option(min=1, help="Attempt to read; by default the current.", show_default=False),
    ] = None,
    url: Url = None,
) -> None:
    """Print the log of a job's driver."""
    with connect(url) as client:
        for piece in client.logs(job_id, follow=follow, attempt=attempt):
            typer.echo(piece, nl=False)


def pause(
    job_id: JobId,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the job is paused.")] = False,
    url: Url = None,
) -> None:
    """Take a job off the cluster; a last checkpoint is written, from which it can be resumed."""
    with connect(url) as client:
        job = client.pause_job(job_id)
        if wait and job.status == "pausing":
            job = _wait_for_pause(client, job)
    result(f"{job.id} {job.status}")
    if wait and job.status != "paused":
        note("the job went on to another state before it could be paused")
        raise typer.Exit(1)
    note(f"resume it: {resume_command(job.id)}")


def resume(
    job_id: JobId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show the job until it ends.")
    ] = False,
    url: Url = None,
) -> None:
    """Queue a paused job again; it goes on from its last checkpoint.

    With --follow the exit code is that of `follow`.
    """
    with connect(url) as client:
        job = client.resume_job(job_id)
        result(f"{job.id} {job.status}")
        if follow:
            _follow_to_the_end(client, job.id)


def cancel(
    job_id: JobId,
    trial: Annotated[
        str | None,
        typer.Option(
            metavar="TRIAL",
            help="Cancel only this trial of a search, such as trial-0007.",
            show_default=False,
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the job has ended.")] = False,
    url: Url = None,
) -> None:
    """Cancel a job; a last checkpoint is written, and all checkpoints stay."""
    if trial is not None and wait:
        raise typer.BadParameter("--wait waits for the job, which goes on without --trial's")
    with connect(url) as client:
        if trial is not None:
            _cancel_trial(client, job_id, trial)
            return
        job = client.cancel_job(job_id)
        if wait and not job.terminal:
            job = _wait_for_end(client, job)
    result(f"{job.id} {job.status}")
    if wait and job.status != "cancelled":
        note("the job ended before it could be cancelled")
        raise typer.Exit(1)


def follow(job_id: JobId, url: Url = None) -> None:
    """Show a job until it ends, also while it is paused; Ctrl-C leaves it as it is.

    The exit code is 0 if the job succeeded, 1 if it failed, 3 if it was cancelled.
    """
    with connect(url) as client:
        _follow_to_the_end(client, job_id)


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
        text = problem_text(error, lambda fault: f"{path}:{fault.line}" if fault.line else "")
        raise CliError(f"{path}: {text}") from error
    note(f"uploaded {path}: {uploaded.num_rows:,} rows, {uploaded.id}")
    return uploaded


def _show_dry_run(client: Client, spec: SpecFile, as_json: bool) -> NoReturn:
    """Show what a job would come to and exit by whether it can be placed."""
    document = _with_uploads(client, spec).document
    note("asking the cluster; this takes a moment")
    found = client.dry_run(document)
    if as_json:
        result(found.model_dump_json(indent=2))
    else:
        search = SearchSpec.model_validate(document) if document.get("kind") == "search" else None
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


def _follow_to_the_end(client: Client, job_id: str) -> NoReturn:
    """Show a job until it ends and exit as it did."""
    try:
        job = follow_job(client, job_id, open_console())
    except KeyboardInterrupt:
        note(
            f"\n{job_id} is left as it is. Show it again: hyplora follow {job_id}\n"
            f"Pause it: hyplora pause {job_id}\nCancel it: hyplora cancel {job_id}"
        )
        raise typer.Exit(_INTERRUPTED) from None
    _report_end(client, job)
    raise typer.Exit(_EXIT_CODES[job.status])


def _report_end(client: Client, job: JobRead) -> None:
    """Say what came of a job and what can be done next."""
    if job.search and job.search.best_trials:
        _report_best(client, job.id, job.search.best_trials[0])
    if job.failure:
        if job.failure.log_tail:
            note(f"\nend of the log:\n{job.failure.log_tail.rstrip()}\n")
        note(f"{job.id} failed: {job.failure.code}: {job.failure.message}")
        return
    if version := job.model_version:
        reference = f"@{version.alias}" if version.alias else f"/{version.version}"
        result(f"registered {version.name} version {version.version}")
        result(f"fetch it: hyplora pull {version.name}{reference} DIR")
    if job.links.report and job.status == "succeeded":
        note(f"what it found: hyplora report {job.id}")


def _report_best(client: Client, job_id: str, trial_id: str) -> None:
    try:
        best = str(trial_line(client.get_trial(job_id, trial_id)))
    except ClientError as error:  # the job has ended all the same
        best = f"{trial_id} ({error})"
    result(f"best: {best}")
    note(f"all trials: hyplora trials {job_id} --sort objective")


def _cancel_trial(client: Client, job_id: str, trial_id: str) -> None:
    trial = client.cancel_trial(job_id, trial_id)
    result(f"{trial.id} {state_text(trial)}")
    note(f"the search goes on; see it with: hyplora trials {job_id}")


def _wait_for_end(client: Client, job: JobRead) -> JobRead:
    for _ in client.follow_events(job.id):
        pass
    return client.get_job(job.id)


def _wait_for_pause(client: Client, job: JobRead) -> JobRead:
    """Wait until a job is no longer `pausing`; its history may hold earlier pauses."""
    for event in client.follow_events(job.id):
        if event.type == "status":
            job = client.get_job(job.id)
            if job.status != "pausing":
                break
    return job

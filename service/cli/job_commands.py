"""Commands about jobs that are there: list, show, follow, pause, resume, cancel."""

from collections.abc import Iterable
from typing import Annotated

import typer

from jobs.specs import JobKind
from service.answers import JobRead
from service.cli.console import note, open_console, result
from service.cli.endpoint import Url, connect
from service.cli.follow import resume_command
from service.cli.job_ending import follow_to_the_end
from service.cli.job_views import job_view, jobs_table
from service.cli.trial_views import state_text
from service.client import Client
from service.states import JobStatus

JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def jobs(
    status: Annotated[
        JobStatus | None, typer.Option(help="Only jobs in this state.", show_default=False)
    ] = None,
    kind: Annotated[
        JobKind | None, typer.Option(help="Only jobs of this kind.", show_default=False)
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Only jobs of this name.", show_default=False)
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="Only jobs with this tag; may be repeated.")
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="Only jobs with this in their metadata; may be repeated."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="Most jobs to list.")] = 20,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """List jobs, newest first."""
    with connect(url) as client:
        page = client.list_jobs(
            limit=limit,
            status=status,
            kind=kind,
            name=name,
            tags=tag or (),
            metadata=_pairs(metadata or ()),
        )
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
            follow_to_the_end(client, job.id)


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
        follow_to_the_end(client, job_id)


def _pairs(assignments: Iterable[str]) -> dict[str, str]:
    pairs = {}
    for assignment in assignments:
        key, separator, value = assignment.partition("=")
        if not (key and separator):
            raise typer.BadParameter(f"--metadata {assignment}: write KEY=VALUE, as in team=maths")
        pairs[key] = value
    return pairs


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

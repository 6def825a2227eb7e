"""How a command that follows a job ends: as the job did, and with what can be done next."""

from typing import NoReturn

import typer

from service.answers import JobRead
from service.cli.console import note, open_console, result
from service.cli.follow import follow_job
from service.cli.trial_views import trial_line
from service.client import Client, ClientError

_EXIT_CODES = {"succeeded": 0, "failed": 1, "cancelled": 3}
_INTERRUPTED = 130


def follow_to_the_end(client: Client, job_id: str) -> NoReturn:
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

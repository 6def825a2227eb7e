"""The live display of a job: a bar, or a search's trials, on a terminal, lines anywhere else."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column
from rich.text import Text

from service.answers import EventRead, JobRead, ProgressRead
from service.cli.figures import progress_text, status_text
from service.cli.follow_search import TrialLines, TrialsTable
from service.client import Client

_LINES_A_JOB = 20
"""Progress lines that a job prints where no bar can be drawn."""

_MARGIN = " " * len("hh:mm:ss  ")


def follow_job(client: Client, job_id: str, console: Console) -> JobRead:
    """Show a job until it has ended; one that is paused is waited for.

    Args:
        client: The service that has the job.
        job_id: The job.
        console: Where it is shown.

    Returns:
        The job as it ended.

    Raises:
        ClientError: If the service is away for long or has no such job.
    """
    displays: list[_Display] = [_LineDisplay(console)]
    events = client.follow_events(
        job_id, on_interruption=lambda error: displays[-1].line(_interruption_line(error))
    )
    first = list(islice(events, 1))  # a service that is away is waited for before it is asked more
    with _open_display(client, client.get_job(job_id), console) as display:
        displays.append(display)
        for event in chain(first, events):
            if event.type == "progress":
                display.progress(ProgressRead.model_validate(event.data))
                continue
            if event.type == "status":
                display.status(str(event.data["status"]))
            display.line(_event_line(event))
    return client.get_job(job_id)


def resume_command(job_id: str) -> str:
    """Return what to type to resume a paused job."""
    return f"hyplora resume {job_id}"


class _Display(Protocol):
    """Shows what happens to one job."""

    def line(self, text: Text) -> None:
        """Add a line that stays."""

    def status(self, status: str) -> None:
        """Take note of a status."""

    def progress(self, progress: ProgressRead) -> None:
        """Show how far the job is."""


class _LineDisplay:
    """Lines for files and pipes; of the progress only as much as a reader wants."""

    def __init__(self, console: Console, kind: str = "") -> None:
        self._console = console
        self._kind = kind
        self._next_step = 0.0
        self._eval_loss: float | None = None

    def line(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)

    def status(self, status: str) -> None:
        """Add nothing: the line of the event has said it."""

    def progress(self, progress: ProgressRead) -> None:
        step, total = progress.step or 0, progress.total_steps or 0
        is_due = step >= self._next_step or step >= total > 0
        if is_due or progress.eval_loss != self._eval_loss:
            self._next_step = step + total / _LINES_A_JOB
            self._eval_loss = progress.eval_loss
            counted = "step " if self._kind == "finetune" else ""
            self.line(Text(f"{_MARGIN}{counted}{progress_text(self._kind, progress)}"))


class _BarDisplay:
    """A bar at the bottom of the terminal, with the lines above it."""

    def __init__(self, console: Console, kind: str) -> None:
        self._kind = kind
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None, table_column=Column(min_width=8, ratio=1)),
            TextColumn("{task.fields[figures]}", markup=False, table_column=Column(no_wrap=True)),
            console=console,
            expand=True,
        )
        self._task = self.bar.add_task("queued", total=None, figures="")

    def line(self, text: Text) -> None:
        self.bar.console.print(text)

    def status(self, status: str) -> None:
        self.bar.update(self._task, description=status)

    def progress(self, progress: ProgressRead) -> None:
        self.bar.update(
            self._task,
            completed=progress.step or 0,
            total=progress.total_steps,
            figures=progress_text(self._kind, progress),
        )


@contextmanager
def _open_display(client: Client, job: JobRead, console: Console) -> Iterator[_Display]:
    if job.kind == "search":
        if console.is_terminal:
            with TrialsTable(client, job, console) as table:
                yield table
        else:
            yield TrialLines(client, job, console)
    elif console.is_terminal:
        display = _BarDisplay(console, job.kind)
        with display.bar:
            yield display
    else:
        yield _LineDisplay(console, job.kind)


def _event_line(event: EventRead) -> Text:
    """Write a status change or a message as one line with its local time."""
    line = Text().append(f"{event.created_at.astimezone():%H:%M:%S}  ", style="dim")
    if event.type == "status":
        status, reason = str(event.data["status"]), event.data.get("reason")
        line.append_text(status_text(status))
        # Why a job failed is told once, in full, after its last event.
        if reason and status != "failed":
            line.append(f": {reason}")
        if status == "paused":
            line.append(f"; resume it: {resume_command(event.job_id)}")
        return line
    level, text = event.data.get("level", "info"), event.data.get("text", "")
    return line.append(str(text) if level == "info" else f"{level}: {text}")


def _interruption_line(error: Exception) -> Text:
    return Text(f"{_MARGIN}{error}; trying to connect again …", style="yellow")

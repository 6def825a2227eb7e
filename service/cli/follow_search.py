"""The live display of a search: a table of its trials on a terminal, lines anywhere else."""

from collections.abc import Sequence
from threading import Event, Thread
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from jobs.tickets import TrialState
from service.answers import JobRead, ProgressRead
from service.cli.figures import status_text
from service.cli.trial_views import best_first, trial_line, trials_table
from service.client import Client, ClientError
from service.trial_answers import TrialRead

_INTERVAL_S = 3.0
"""Time between two looks at the trials: each has MLflow read all of them."""

_MARGIN = " " * len("hh:mm:ss  ")
_LINES_AROUND = 6
"""Lines of a terminal that the rows of the table leave free."""


class TrialLines:
    """A line for each trial that has ended, for files and pipes."""

    def __init__(self, client: Client, job: JobRead, console: Console) -> None:
        self._client = client
        self._job_id = job.id
        self._console = console
        self._told: set[str] = set()
        self._is_out = False

    def line(self, text: Text) -> None:
        """Add a line."""
        self._console.print(text, soft_wrap=True)

    def status(self, status: str) -> None:
        """Tell the trials that ended before the search did."""
        if status != "queued":
            self._tell()

    def progress(self, progress: ProgressRead) -> None:
        """Tell the trials that have ended since the last time."""
        self._tell()

    def _tell(self) -> None:
        try:
            trials = self._client.list_trials(self._job_id).data
        except ClientError as error:
            if not self._is_out:
                self.line(Text(f"{_MARGIN}{error}; trials are shown later"))
            self._is_out = True
            return
        self._is_out = False
        for trial in trials:
            if trial.state is not TrialState.RUNNING and trial.id not in self._told:
                self._told.add(trial.id)
                self.line(Text(_MARGIN).append_text(trial_line(trial)))


class TrialsTable:
    """A table at the bottom of the terminal, the best trial first, with the lines above it."""

    def __init__(self, client: Client, job: JobRead, console: Console) -> None:
        self._client = client
        self._job = job
        self._console = console
        self._status = str(job.status)
        self._num_trials = job.search.num_trials if job.search else None
        self._trials: Sequence[TrialRead] = ()
        self._trouble = ""
        self._is_over = Event()
        self._watch = Thread(target=self._look_again, daemon=True)
        self._live = Live(self._view(), console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        self._watch.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over.set()
        # A look that hangs must not hold up the end; the thread dies with the process.
        self._watch.join(_INTERVAL_S)
        self._live.stop()

    def line(self, text: Text) -> None:
        """Add a line that stays."""
        self._live.console.print(text)

    def status(self, status: str) -> None:
        """Show a status, and the trials as they are by then."""
        self._status = status
        self._look()

    def progress(self, progress: ProgressRead) -> None:
        """Show how many trials have ended."""
        self._num_trials = progress.total_steps
        self._look()

    def _look_again(self) -> None:
        while not self._is_over.wait(_INTERVAL_S):
            self._look()

    def _look(self) -> None:
        try:
            page = self._client.list_trials(self._job.id, sort=best_first(self._job))
            self._trials, self._trouble = page.data, ""
        except ClientError as error:
            self._trouble = f"as last seen: {error}"
        self._live.update(self._view(), refresh=True)

    def _view(self) -> RenderableType:
        trials = self._trials
        shown = visible(trials, max(4, self._console.height - _LINES_AROUND))
        num_ended = sum(trial.state is not TrialState.RUNNING for trial in trials)
        footer = status_text(self._status)
        footer.append(f"  {num_ended}/{self._num_trials or '?'} trials", style="default")
        footer.append(f", {len(trials) - num_ended} running", style="default")
        if len(shown) < len(trials):
            rest = len(trials) - len(shown)
            footer.append(f", {rest} not shown: hyplora trials {self._job.id}", style="default")
        if self._trouble:
            footer.append(f"\n{self._trouble}", style="yellow")
        return Group(trials_table(self._job, shown), footer) if shown else footer


def visible(trials: Sequence[TrialRead], num_rows: int) -> Sequence[TrialRead]:
    """Return the trials that a screen has room for: the first, and at least some that run.

    Args:
        trials: Best first; those that run come after those that have ended.
        num_rows: Room.
    """
    if len(trials) <= num_rows:
        return trials
    running = [trial for trial in trials if trial.state is TrialState.RUNNING]
    ended = [trial for trial in trials if trial.state is not TrialState.RUNNING]
    num_running = min(len(running), max(num_rows // 2, num_rows - len(ended)))
    return [*ended[: num_rows - num_running], *running[:num_running]]

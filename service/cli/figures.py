"""Statuses, durations, losses and progress as a person reads them."""

from datetime import timedelta

from rich.text import Text

from service.answers import ProgressRead

_STYLES = {
    "succeeded": "green",
    "failed": "red",
    "cancelled": "yellow",
    "paused": "yellow",
    "running": "cyan",
}


_COUNTED = {
    "search": "trials",
    "evaluate": "rows",
    "compare": "trainings and evaluations",
    "analyze": "parts",
}


def status_text(status: str) -> Text:
    """Return a job's status in its colour."""
    return Text(status, style=_STYLES.get(status, ""))


def duration_text(seconds: float) -> str:
    """Write a duration as h:mm:ss."""
    return str(timedelta(seconds=round(seconds)))


def count_text(kind: str, progress: ProgressRead) -> str:
    """Write how much is done of how much: steps of a training, what other kinds of jobs count."""
    count = f"{progress.step or 0}/{progress.total_steps or '?'}"
    return f"{count} {_COUNTED[kind]}" if kind in _COUNTED else count


def progress_text(kind: str, progress: ProgressRead) -> str:
    """Write what is known of the count, losses, speed and time left."""
    figures = [count_text(kind, progress)]
    if progress.loss is not None:
        figures.append(f"loss {progress.loss:#.4g}")
    if progress.eval_loss is not None:
        figures.append(f"eval {progress.eval_loss:#.4g}")
    if progress.tokens_per_s is not None:
        figures.append(f"{progress.tokens_per_s:,.0f} tok/s")
    if progress.seconds_left is not None:
        figures.append(f"{duration_text(progress.seconds_left)} left")
    return "  ".join(figures)

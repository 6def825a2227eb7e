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


def status_text(status: str) -> Text:
    """Return a job's status in its colour."""
    return Text(status, style=_STYLES.get(status, ""))


def duration_text(seconds: float) -> str:
    """Write a duration as h:mm:ss."""
    return str(timedelta(seconds=round(seconds)))


def progress_text(progress: ProgressRead) -> str:
    """Write what is known of steps, losses, speed and time left."""
    figures = [f"{progress.step or 0}/{progress.total_steps or '?'}"]
    if progress.loss is not None:
        figures.append(f"loss {progress.loss:#.4g}")
    if progress.eval_loss is not None:
        figures.append(f"eval {progress.eval_loss:#.4g}")
    if progress.tokens_per_s is not None:
        figures.append(f"{progress.tokens_per_s:,.0f} tok/s")
    if progress.seconds_left is not None:
        figures.append(f"{duration_text(progress.seconds_left)} left")
    return "  ".join(figures)

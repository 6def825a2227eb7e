"""Jobs as a person reads them: the list, and one job in full."""

from collections.abc import Iterable
from datetime import UTC, datetime

import yaml
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from service.answers import JobRead
from service.cli.follow import duration_text, status_text


def jobs_table(jobs: Iterable[JobRead]) -> Table:
    """Return one row a job."""
    table = Table("job", "name", "status", "step", "loss", "created", "model version", box=None)
    for job in jobs:
        progress, version = job.progress, job.model_version
        table.add_row(
            job.id,
            job.name,
            status_text(job.status),
            f"{progress.step or 0}/{progress.total_steps or '?'}" if progress else "",
            f"{progress.loss:.4g}" if progress and progress.loss is not None else "",
            _local(job.created_at),
            f"{version.name}/{version.version}" if version else "",
        )
    return table


def job_view(job: JobRead) -> Table:
    """Return everything about one job that is known."""
    view = Table.grid(padding=(0, 2))
    for label, value in _facts(job):
        view.add_row(Text(label, style="dim"), value)
    return view


def _facts(job: JobRead) -> Iterable[tuple[str, RenderableType]]:
    yield "job", job.id
    yield "name", job.name
    yield "kind", job.kind
    yield "status", status_text(job.status)
    yield "created", _local(job.created_at)
    if job.started_at:
        ended = job.finished_at or datetime.now(UTC)
        yield "started", _local(job.started_at)
        yield (
            "running for" if not job.terminal else "took",
            duration_text((ended - job.started_at).total_seconds()),
        )
    if job.attempt > 1:
        yield "attempt", str(job.attempt)
    if job.progress:
        for name, value in job.progress.model_dump(exclude_none=True).items():
            yield name.replace("_", " "), f"{value:.6g}"
    if job.failure:
        yield "failure", Text(f"{job.failure.code}: {job.failure.message}", style="red")
    if version := job.model_version:
        alias = f" ({version.name}@{version.alias})" if version.alias else ""
        yield "model version", f"{version.name}/{version.version}{alias}"
    for name, link in job.links.model_dump(exclude_none=True).items():
        yield name.replace("_", " "), link
    yield "spec", yaml.safe_dump(job.spec, sort_keys=False, default_flow_style=False).rstrip()


def _local(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"

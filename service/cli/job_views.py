"""Jobs as a person reads them: the list, and one job in full."""

import textwrap
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import yaml
from rich.table import Table
from rich.text import Text

from service.answers import JobRead
from service.cli.figures import count_text, duration_text, progress_text, status_text
from service.cli.trial_views import search_text

_LABEL_WIDTH = len("model version  ")


def jobs_table(jobs: Iterable[JobRead]) -> Table:
    """Return one row a job."""
    table = Table("job", "name", "status", "progress", "loss", "created", "model version", box=None)
    for job in jobs:
        progress, version = job.progress, job.model_version
        table.add_row(
            job.id,
            job.name,
            status_text(job.status),
            count_text(job.kind, progress) if progress else "",
            f"{progress.loss:#.4g}" if progress and progress.loss is not None else "",
            _local(job.created_at),
            f"{version.name}/{version.version}" if version else "",
        )
    return table


def job_view(job: JobRead) -> Text:
    """Return everything about one job that is known; lines are as long as what they hold."""
    view = Text()
    for label, value in _facts(job):
        view.append(f"{label:<{_LABEL_WIDTH}}", style="dim").append_text(value).append("\n")
    spec = yaml.safe_dump(job.spec, sort_keys=False)
    view.append("spec\n", style="dim").append(textwrap.indent(spec, "  ").rstrip())
    return view


def _facts(job: JobRead) -> Iterator[tuple[str, Text]]:
    yield "job", Text(job.id)
    yield "name", Text(job.name)
    yield "kind", Text(job.kind)
    yield "project", Text(job.project)
    if job.tags:
        yield "tags", Text(", ".join(job.tags))
    if job.metadata:
        yield "metadata", Text(", ".join(f"{key}={value}" for key, value in job.metadata.items()))
    if job.priority:
        yield "priority", Text(str(job.priority))
    if job.rerun_of:
        yield "rerun of", Text(job.rerun_of)
    yield "status", status_text(job.status)
    yield "created", Text(_local(job.created_at))
    if job.started_at:
        seconds = ((job.finished_at or datetime.now(UTC)) - job.started_at).total_seconds()
        yield "started", Text(_local(job.started_at))
        yield "took" if job.terminal else "so far", Text(duration_text(seconds))
    if job.attempt > 1:
        yield "attempt", Text(str(job.attempt))
    if job.data_summary:
        yield "data", Text(job.data_summary)
    if job.search:
        yield "progress", Text(search_text(job.search))
    elif job.progress:
        yield "progress", Text(progress_text(job.kind, job.progress))
    if job.progress and job.progress.checkpoint_step is not None:
        yield "checkpoint", Text(f"step {job.progress.checkpoint_step}")
    if job.summary:
        yield "result", Text(job.summary)
    if job.failure:
        yield "failure", Text(f"{job.failure.code}: {job.failure.message}", style="red")
    if version := job.model_version:
        alias = f" ({version.name}@{version.alias})" if version.alias else ""
        yield "model version", Text(f"{version.name}/{version.version}{alias}")
    for label, link in (
        ("Ray dashboard", job.links.ray_dashboard),
        ("MLflow run", job.links.mlflow_run),
        ("MLflow model", job.links.model_version),
    ):
        if link:
            yield label, Text(link)


def _local(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"

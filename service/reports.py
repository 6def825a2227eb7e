"""What jobs found: the reports with their plots and tables, kept by MLflow with the job's run."""

from collections.abc import Sequence
from copy import copy
from typing import Literal, Self

from service.boundaries import Artifact, Runs
from service.callers import Caller
from service.errors import RefusedError, ReportFileNotFoundError, ReportNotFoundError
from service.lifecycle import Jobs
from service.tables import Job

ReportFormat = Literal["json", "markdown"]
"""The whole as data, or as a page to read."""

_MAX_BYTES = 64 * 1024**2
"""Largest file that is handed out; it is held in memory."""
_PAGES: dict[ReportFormat, str] = {"json": "report.json", "markdown": "report.md"}


def report_folder(job: Job) -> str | None:
    """Where a job's report lies among its run's artifacts; None for a job that makes none."""
    if job.kind == "finetune":
        return "analyze" if job.spec.get("analysis") else None
    return job.kind


class Reports:
    """The reports of every job.

    Args:
        jobs: Knows the jobs.
        runs: Has the reports.
    """

    def __init__(self, jobs: Jobs, runs: Runs) -> None:
        self._jobs = jobs
        self._runs = runs

    def acting_for(self, caller: Caller) -> Self:
        """The reports as they are for a caller: those of others' jobs are not found."""
        acting = copy(self)
        acting._jobs = self._jobs.acting_for(caller)
        return acting

    async def read(self, job_id: str, form: ReportFormat) -> bytes:
        """A report, in UTF-8.

        Raises:
            JobNotFoundError: If there is no such job.
            MlflowUnavailableError: If MLflow does not answer.
            ReportFileNotFoundError: If it is too large to be handed out.
            ReportNotFoundError: If the job has none.
        """
        return await self.read_file(job_id, _PAGES[form])

    async def files(self, job_id: str) -> Sequence[Artifact]:
        """The files of a report, itself included.

        Raises:
            JobNotFoundError: If there is no such job.
            MlflowUnavailableError: If MLflow does not answer.
            ReportNotFoundError: If the job has none.
        """
        _, found = await self._find(job_id)
        return found

    async def read_file(self, job_id: str, name: str) -> bytes:
        """The content of one file.

        Raises:
            JobNotFoundError: If there is no such job.
            MlflowUnavailableError: If MLflow does not answer.
            ReportFileNotFoundError: If it has no such file, or one that is too large.
            ReportNotFoundError: If the job has no report.
        """
        run_id, found = await self._find(job_id)
        files = {file.name: file for file in found}
        if name not in files:
            raise ReportFileNotFoundError(
                f"the report of {job_id} has no file {name!r}; it has {', '.join(files)}"
            )
        file = files[name]
        if file.size_bytes > _MAX_BYTES:
            raise ReportFileNotFoundError(
                f"{name} has {file.size_bytes:,} bytes, and at most {_MAX_BYTES:,} are handed out; "
                f"take it from MLflow: {file.path} of the job's run"
            )
        return await self._runs.read_artifact(run_id, file.path)

    async def _find(self, job_id: str) -> tuple[str, Sequence[Artifact]]:
        """The run that has a job's report, and its files."""
        job = await self._jobs.get(job_id)
        folder = report_folder(job)
        if folder is None:
            raise ReportNotFoundError(
                f"{job_id} is a fine-tune without `analysis`, which makes no report"
            )
        try:
            found = await self._runs.artifacts(job.run_id, folder) if job.run_id else []
        except RefusedError:  # someone has deleted the run for good
            found = []
        if job.run_id is None or not {file.name for file in found}.issuperset(_PAGES.values()):
            when = "it ended without one" if job.terminal else "it is written at the end"
            raise ReportNotFoundError(f"{job_id} is {job.status} and has no report: {when}")
        return job.run_id, found

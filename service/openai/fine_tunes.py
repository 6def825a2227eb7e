"""Jobs that train one adapter, as OpenAI's clients look at them."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends

from jobs.specs import JobKind
from service.dependencies import FilesPart, JobsPart, ViewsPart
from service.errors import JobNotFoundError
from service.openai.answers import FineTuningJobRead
from service.openai.views import fine_tuning_job
from service.states import JobStatus
from service.tables import Job


class FineTunes:
    """The fine-tunes of a caller; jobs of other kinds are not found."""

    def __init__(self, jobs: JobsPart, files: FilesPart, views: ViewsPart) -> None:
        self._jobs = jobs
        self._files = files
        self._views = views

    async def get(self, job_id: str) -> Job:
        """A fine-tune as it stands.

        Raises:
            JobNotFoundError: If there is none.
        """
        job = await self._jobs.get(job_id)
        if job.kind != JobKind.FINETUNE:
            raise JobNotFoundError(f"{job_id} is no fine-tune; GET /v1/jobs/{job_id} answers it")
        return job

    async def read(self, job: Job) -> FineTuningJobRead:
        """A fine-tune in OpenAI's form."""
        return (await self.read_all([job]))[0]

    async def read_all(self, jobs: Sequence[Job]) -> list[FineTuningJobRead]:
        """Fine-tunes in OpenAI's form."""
        waiting = [job for job in jobs if job.status is JobStatus.QUEUED]
        unchecked = await self._files.validating({name for job in waiting for name in _files(job)})
        return [
            fine_tuning_job(job, self._views.job(job), not unchecked.isdisjoint(_files(job)))
            for job in jobs
        ]


FineTunesPart = Annotated[FineTunes, Depends()]


def _files(job: Job) -> set[str]:
    """What a job reads its rows from, as far as it is told by an id or an address."""
    data = job.spec["data"]
    return {source for source in (data["train"], data["validation"]) if isinstance(source, str)}

"""Which jobs that have not ended need a registered model or one of its versions."""

from collections.abc import Iterator, Sequence
from copy import copy
from typing import Self

from pydantic import TypeAdapter
from sqlalchemy import String, cast, or_, select

from jobs.model_references import VersionReference, model_uris, written_models
from jobs.specs import JobSpec
from jobs.tickets import RunTag
from service.boundaries import ModelVersion
from service.callers import Caller, visible_project
from service.database import Database
from service.states import JobStatus
from service.tables import Job

_SPEC: TypeAdapter[JobSpec] = TypeAdapter(JobSpec)
_LIVE = [status for status in JobStatus if not status.is_terminal]


class ModelUses:
    """The uses of models by jobs of all projects; those of others are not named.

    Args:
        database: Where the jobs are.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._caller: Caller | None = None

    def acting_for(self, caller: Caller) -> Self:
        """The same, in words for a caller."""
        acting = copy(self)
        acting._caller = caller
        return acting

    async def of_version(self, version: ModelVersion) -> Sequence[str]:
        """Jobs that need a version: one by its number, or perhaps by an alias; or its own job.

        A job that has begun holds on to what an alias pointed at then, whatever that was.
        """
        maker = version.tags.get(RunTag.JOB_ID)

        def needs(job: Job) -> bool:
            return job.id == maker or any(
                reference.version == version.version
                or (reference.version is None and job.attempt > 0)
                for reference in _references(job)
                if reference.name == version.name
            )

        return [self._in_words(job) for job in await self._live(version.name, maker) if needs(job)]

    async def of_model(self, name: str) -> Sequence[str]:
        """Jobs that read a model, in whichever version, or write to it."""

        def needs(job: Job) -> bool:
            written = written_models(_SPEC.validate_python(job.spec)).values()
            return name in written or any(each.name == name for each in _references(job))

        return [self._in_words(job) for job in await self._live(name) if needs(job)]

    async def _live(self, name: str, job_id: str | None = None) -> Sequence[Job]:
        """Jobs that have not ended and hold the name somewhere in their specs."""
        holds_name = cast(Job.spec, String).contains(name, autoescape=True)
        query = (
            select(Job)
            .where(Job.status.in_(_LIVE), or_(holds_name, Job.id == job_id))
            .order_by(Job.created_at)
        )
        async with self._database.reading() as session:
            return (await session.scalars(query)).all()

    def _in_words(self, job: Job) -> str:
        is_shown = visible_project(self._caller) in {None, job.project}
        return job.id if is_shown else "a job of another project"


def _references(job: Job) -> Iterator[VersionReference]:
    for uri in model_uris(_SPEC.validate_python(job.spec)).values():
        try:
            reference = VersionReference.parse(uri)
        except ValueError:  # of a job that was queued before such references were refused
            continue
        if reference is not None:
            yield reference

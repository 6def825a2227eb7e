"""Which jobs a list shows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, exists

from jobs.specs import JobKind
from service.states import JobStatus
from service.tables import Job, JobFact, JobTag


@dataclass(frozen=True)
class JobFilter:
    """What jobs have in common; what is left out is anything."""

    status: JobStatus | None = None
    kind: JobKind | None = None
    name: str | None = None
    project: str | None = None
    tags: tuple[str, ...] = ()
    """All of them, and perhaps others."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """All of these pairs, and perhaps others."""

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        """What holds for each of the jobs."""
        for column, value in (
            (Job.status, self.status),
            (Job.kind, self.kind),
            (Job.name, self.name),
            (Job.project, self.project),
        ):
            if value is not None:
                yield column == value
        for tag in self.tags:
            yield exists().where(JobTag.job_id == Job.id, JobTag.tag == tag)
        for key, wanted in self.metadata.items():
            fact = JobFact
            yield exists().where(fact.job_id == Job.id, fact.key == key, fact.value == wanted)

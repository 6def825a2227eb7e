"""What the control plane keeps: jobs, events, files, whose models are, API keys, audit log, leases.

The types hold on SQLite and on PostgreSQL; `migrations/` builds the same tables.
"""

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Enum,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from service.callers import DEFAULT_PROJECT
from service.file_states import FileStatus
from service.states import JobStatus


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC; SQLite, which knows no time zones, stores it without one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a local time, which would be stored as if it were UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("give moments with a time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Put the zone back that SQLite dropped."""
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=UTC)


# SQLite counts rows up only in a column of exactly the type INTEGER.
EventId = BigInteger().with_variant(Integer, "sqlite")
Document = JSON(none_as_null=True)


class Base(DeclarativeBase):
    """Base of the tables; constraints are named so that migrations can change them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcDateTime,
        dict[str, Any]: Document,
        JobStatus: Enum(
            JobStatus, native_enum=False, length=16, values_callable=lambda kind: list(kind)
        ),
        FileStatus: Enum(
            FileStatus, native_enum=False, length=16, values_callable=lambda kind: list(kind)
        ),
    }


class Job(Base):
    """One spec being carried out."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index(None, "status", "created_at"),
        Index(None, "created_at", "id"),
        Index(None, "project", "created_at", "id"),
        Index(None, "kind", "created_at", "id"),
        Index(None, "name", "created_at", "id"),
        Index(None, "project", "idempotency_key", unique=True),
    )

    id: Mapped[str] = mapped_column(String(20), primary_key=True)
    project: Mapped[str] = mapped_column(String(64), default=DEFAULT_PROJECT)
    """Whose job it is."""

    kind: Mapped[str] = mapped_column(String(32))
    name: Mapped[str] = mapped_column(String(64))
    status: Mapped[JobStatus]
    spec: Mapped[dict[str, Any]]

    priority: Mapped[int] = mapped_column(default=0)
    """That of the spec, for the queue."""

    rerun_of: Mapped[str | None] = mapped_column(String(20))
    """The job whose spec this one's was made of; no foreign key, since that one may be gone."""

    revision: Mapped[int] = mapped_column(Integer)
    """Grows with every change of the row."""

    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    """What the client calls the request that made the job; no other of the project has it."""

    request_digest: Mapped[str | None] = mapped_column(String(64))
    """Tells whether a request of the same key asks for the same; there is one wherever a key is."""

    attempt: Mapped[int] = mapped_column(default=0)
    """Submissions so far. While it is 0, nothing of the job exists outside this database."""

    paused_attempt: Mapped[int] = mapped_column(default=0)
    """The attempt that the last pause gave up, and one more for each that Ray lost since: so many
    are not held against the job. While it is the current one, no driver exists."""

    submitted_at: Mapped[datetime | None]
    """When Ray took the current attempt; empty while the dispatcher still has to submit it."""

    run_id: Mapped[str | None] = mapped_column(String(64))
    experiment_id: Mapped[str | None] = mapped_column(String(64))
    data_summary: Mapped[str | None] = mapped_column(Text)
    """What the workers say about the rows; one message event tells the same."""

    num_restarts: Mapped[int] = mapped_column(default=0)
    """Losses of workers that message events have told of."""

    summary: Mapped[str | None] = mapped_column(Text)
    """What an evaluation, a comparison or an analysis found."""

    progress: Mapped[dict[str, Any] | None]
    progress_at: Mapped[datetime | None]
    failure: Mapped[dict[str, Any] | None]
    model_version: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    __mapper_args__ = {"version_id_col": revision}  # noqa: RUF012  # SQLAlchemy reads it once

    @property
    def terminal(self) -> bool:
        """Whether the job has ended for good."""
        return self.status.is_terminal

    @property
    def search(self) -> dict[str, Any] | None:
        """What is known of a search's trials together."""
        return (self.progress or {}).get("search")

    @property
    def tags(self) -> list[str]:
        """Words to find the job by; a job of an older service has none."""
        return list(self.spec.get("tags", ()))

    @property
    def facts(self) -> dict[str, str]:
        """The metadata of the spec; SQLAlchemy has taken that name."""
        return dict(self.spec.get("metadata", {}))

    @property
    def submission_id(self) -> str:
        """Id of the current attempt on the Ray cluster."""
        return self.submission_id_of(self.attempt)

    def is_over(self, attempt: int) -> bool:
        """Whether an attempt has been given up, or the job has ended."""
        return self.terminal or attempt < self.attempt or attempt <= self.paused_attempt

    def submission_id_of(self, attempt: int) -> str:
        """Id of an attempt on the Ray cluster; no two attempts share one."""
        return f"{self.id}-a{attempt}"


class JobTag(Base):
    """A tag of a job's spec, to find the job by."""

    __tablename__ = "job_tags"
    __table_args__ = (Index(None, "tag", "job_id"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    tag: Mapped[str] = mapped_column(String(64), primary_key=True)


class JobFact(Base):
    """A pair of the metadata of a job's spec, to find the job by."""

    __tablename__ = "job_metadata"
    __table_args__ = (Index(None, "key", "value", "job_id"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(String(512))


class JobFile(Base):
    """An uploaded file that a job's spec names; the record of the file may be gone by now."""

    __tablename__ = "job_files"
    __table_args__ = (Index(None, "file_id", "job_id"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    file_id: Mapped[str] = mapped_column(String(21), primary_key=True)


class JobEvent(Base):
    """Something that happened to a job; clients replay these in the order of their ids."""

    __tablename__ = "events"
    __table_args__ = (Index(None, "job_id", "id"),)

    id: Mapped[int] = mapped_column(EventId, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    created_at: Mapped[datetime]
    type: Mapped[str] = mapped_column(String(16))
    data: Mapped[dict[str, Any]]


class UploadedFile(Base):
    """A data set; several may share one stored content."""

    __tablename__ = "files"
    __table_args__ = (
        Index(None, "created_at", "id"),
        Index(None, "project", "created_at", "id"),
        Index(None, "status", "created_at", "id"),
        Index(None, "sha256"),
    )

    id: Mapped[str] = mapped_column(String(21), primary_key=True)
    project: Mapped[str] = mapped_column(String(64), default=DEFAULT_PROJECT)
    """Whose it is."""

    filename: Mapped[str] = mapped_column(String(255))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    num_rows: Mapped[int | None] = mapped_column(BigInteger)
    """Empty until every row is validated."""

    status: Mapped[FileStatus]
    fault: Mapped[dict[str, Any] | None]
    """Why it is invalid: `problem`, a sentence, and `errors`, the row at fault."""

    created_at: Mapped[datetime]

    @property
    def problem(self) -> str | None:
        """Why it is invalid, in a sentence."""
        return str(self.fault["problem"]) if self.fault else None

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The row that is not valid, as `service.errors.FieldError` has it."""
        return list(self.fault["errors"]) if self.fault else []


class Leftover(Base):
    """Bytes of files that may lie in storage without a record; noted before that can happen."""

    __tablename__ = "file_leftovers"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]


class ModelName(Base):
    """Whose a registered model is, which MLflow cannot tell; the first job that writes it decides.

    A model that has no row here is the default project's.
    """

    __tablename__ = "model_names"
    __table_args__ = (Index(None, "project", "name"),)

    name: Mapped[str] = mapped_column(String(256), primary_key=True)
    project: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]


class ApiKey(Base):
    """A key that opens the API; the record stays when the key is revoked."""

    __tablename__ = "api_keys"
    __table_args__ = (Index(None, "created_at", "id"),)

    id: Mapped[str] = mapped_column(String(20), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    project: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[list[str]] = mapped_column(JSON)
    """Those that were granted; `service.callers` knows which others they include."""

    hash: Mapped[str] = mapped_column(String(200))
    """scrypt, its parameters, the salt and the hashed secret."""

    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    """Up to a minute late."""


class AuditEntry(Base):
    """A change that somebody made, or was refused."""

    __tablename__ = "audit"
    __table_args__ = (Index(None, "target", "id"), Index(None, "key_id", "id"))

    id: Mapped[int] = mapped_column(EventId, primary_key=True, autoincrement=True)
    created_at: Mapped[datetime]
    key_id: Mapped[str | None] = mapped_column(String(20))
    """Whose key it was; empty for an operator at the database."""

    project: Mapped[str] = mapped_column(String(64))
    """Whose the target is; of a refusal, that of the key."""

    action: Mapped[str] = mapped_column(String(100))
    target: Mapped[str] = mapped_column(String(200))
    request_id: Mapped[str | None] = mapped_column(String(64))
    outcome: Mapped[str] = mapped_column(String(32))
    """Either `done` or the code of the problem."""


class LeaseRow(Base):
    """Who may act for all replicas, and until when."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    holder: Mapped[str] = mapped_column(String(64))
    expires_at: Mapped[datetime]


def utc_now() -> datetime:
    """This moment, with its zone."""
    return datetime.now(UTC)

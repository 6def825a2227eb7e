"""What the control plane asks of Ray and of MLflow: protocols and the facts they trade in.

`service.ray_client`, `service.tracking` and `service.model_registry` implement them. Every method
raises the boundary's `UnavailableError` where the other side does not answer, and `RefusedError`
where it answered that the request is wrong and will always be.
"""

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Protocol


class DriverState(StrEnum):
    """What Ray says about a driver."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"
    UNKNOWN = "UNKNOWN"
    """Ray has no such submission: it never arrived, or a restarted head has forgotten it."""

    @property
    def is_live(self) -> bool:
        """Whether the driver runs or will run."""
        return self in {DriverState.PENDING, DriverState.RUNNING}


@dataclass(frozen=True)
class DriverReport:
    """A driver as Ray sees it."""

    state: DriverState
    message: str = ""
    """Ray's own words on how the driver ended, on one line."""


@dataclass(frozen=True)
class DriverRequest:
    """A driver to start."""

    submission_id: str
    entrypoint: str
    """A shell command; nothing that a user wrote goes into it."""
    environment: Mapping[str, str]
    """Readable by everyone who can reach Ray's API: no secrets."""
    metadata: Mapping[str, str]


class Drivers(Protocol):
    """The Ray cluster: one driver process for each attempt at a job."""

    async def ping(self) -> None:
        """Return if the cluster answers."""

    async def submit(self, request: DriverRequest) -> None:
        """Start a driver; an id that is taken already has started, which is as good.

        Raises:
            DriverNotStartedError: If the cluster answers, but met an error of its own.
        """

    async def report(self, submission_id: str) -> DriverReport:
        """How a driver is."""

    async def stop(self, submission_id: str) -> None:
        """Ask a driver to end; its time to do so is counted from the first of many asks.

        One that has ended, or was never there, is no error.
        """

    async def log(self, submission_id: str) -> str | None:
        """Everything a driver has written; None where Ray no longer has it."""

    def follow_log(self, submission_id: str) -> AsyncGenerator[str]:
        """What a driver has written and writes, in pieces, until it ends."""


class RunStatus(StrEnum):
    """The states of an MLflow run."""

    RUNNING = "RUNNING"
    SCHEDULED = "SCHEDULED"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"

    @property
    def is_ended(self) -> bool:
        """Whether someone has closed the run."""
        return self not in {RunStatus.RUNNING, RunStatus.SCHEDULED}


@dataclass(frozen=True)
class RunRef:
    """Where the run of a job is."""

    run_id: str
    experiment_id: str


@dataclass(frozen=True)
class RunReport:
    """A run as MLflow sees it."""

    ref: RunRef
    status: RunStatus
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The last value of each metric."""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    """When the run was closed; None while it is open."""
    seconds_since_end: float = 0.0
    """Time since the run was closed; 0 while it is open."""


@dataclass(frozen=True)
class History:
    """What was logged of one metric of a run, of each step the last value last."""

    steps: Sequence[int]
    values: Sequence[float]
    """NaN and infinities as they were logged."""
    times_ms: Sequence[int]
    """When each was logged, in Unix time."""
    is_sampled: bool = False
    """Whether MLflow has left points out, as it chose."""


@dataclass(frozen=True)
class Artifact:
    """A file, or a folder, that is kept with a run."""

    path: str
    """Where it lies among the run's artifacts."""
    size_bytes: int
    is_folder: bool = False

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]


NO_TAGS: Mapping[str, str] = MappingProxyType({})


class Runs(Protocol):
    """The MLflow server: one run for each job, whatever the number of its attempts."""

    async def ping(self) -> None:
        """Return if the server answers."""

    async def read(self, run_id: str) -> RunReport | None:
        """A run; None if someone has deleted it."""

    async def find(self, job_id: str) -> RunReport | None:
        """The run that carries the job's tag, or None; doubles of it are deleted."""

    async def discard_doubles(self, job_id: str, run_id: str) -> None:
        """Delete every run that carries the job's tag, but for one and the runs below it."""

    async def children(self, parent: RunRef) -> Sequence[RunReport]:
        """The runs below a run, oldest first."""

    async def create(
        self, job_id: str, name: str, source: str, tags: Mapping[str, str] = NO_TAGS
    ) -> RunRef:
        """Open a run that carries the job's tag from its first moment.

        Args:
            job_id: The job; look with `find` whether it has a run.
            name: What people call it.
            source: The command that carries the job out.
            tags: What else there is to tell of the job.
        """

    async def describe(
        self, run_id: str, parameters: Mapping[str, str], document: Mapping[str, object]
    ) -> None:
        """Log parameters, and the document as the artifact job.json; again is no error."""

    async def set_tag(self, run_id: str, tag: str, value: str) -> None:
        """Tell who watches a run something."""

    async def set_status(self, run_id: str, status: RunStatus) -> None:
        """Show a run as running, or as scheduled while its job is paused."""

    async def end(self, run_id: str, status: RunStatus) -> None:
        """Close a run."""

    async def save_log(self, run_id: str, attempt: int, text: str) -> None:
        """Keep a driver's log with the run, as the artifact logs/attempt-N.log."""

    async def read_log(self, run_id: str, attempt: int) -> str | None:
        """A driver's log as it was kept; None if it was not."""

    async def history(self, run_id: str, key: str, most_points: int) -> History:
        """What was logged of a metric; nothing if it was not.

        Args:
            run_id: The run.
            key: The metric.
            most_points: How many points may be read; a longer series comes sampled.
        """

    async def values_at(self, run_id: str, key: str, steps: Collection[int]) -> Mapping[int, float]:
        """The last value of a metric at each of some steps where it has one."""

    async def artifacts(self, run_id: str, folder: str) -> Sequence[Artifact]:
        """The files of a folder, not those of folders in it; none if there is no such folder."""

    async def entries(self, run_id: str, folder: str) -> Sequence[Artifact]:
        """The files and the folders of a folder; the top one is ""."""

    async def download(self, run_id: str, path: str, folder: Path) -> Path:
        """Copy a file that `entries` has listed into a local folder, and say where it is."""

    async def read_artifact(self, run_id: str, path: str) -> bytes:
        """The content of a file that `artifacts` has listed."""


@dataclass(frozen=True)
class RegisteredModel:
    """A registered model as MLflow has it."""

    name: str
    created_at: datetime | None = None
    aliases: Mapping[str, int] = field(default_factory=dict)
    """The number of the version that each alias points at."""
    newest_version: int | None = None
    """None if it has no version."""


@dataclass(frozen=True)
class ModelVersion:
    """A version of a registered model as MLflow has it."""

    name: str
    version: int
    created_at: datetime | None = None
    run_id: str | None = None
    """The run that made it."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Its lineage, and how it was scored."""


class Registry(Protocol):
    """The model registry of the MLflow server, whose names all projects share."""

    async def models(self) -> Sequence[RegisteredModel]:
        """Every registered model."""

    async def model(self, name: str) -> RegisteredModel | None:
        """A registered model, or None."""

    async def versions(
        self, name: str, limit: int, below: int | None = None
    ) -> Sequence[ModelVersion]:
        """Versions of a model, newest first.

        Args:
            name: The registered model; one that is not there has none.
            limit: Most versions that are returned.
            below: Versions with smaller numbers than this alone.
        """

    async def version(self, name: str, version: int) -> ModelVersion | None:
        """A version, or None."""

    async def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point an alias at a version, wherever it pointed before."""

    async def remove_alias(self, name: str, alias: str) -> None:
        """Remove an alias; one that is not there is no error."""

    async def delete_version(self, name: str, version: int) -> None:
        """Delete a version; the model does not give its number again."""

    async def delete_model(self, name: str) -> None:
        """Delete a registered model with all its versions."""

    async def files(self, name: str, version: int) -> Sequence[Artifact]:
        """The files at the root of a version."""

    async def fetch(self, name: str, version: int, path: str, folder: Path) -> Path:
        """Download one of the files that `files` has listed into a folder, and say where it is."""

"""Registered models: what a request to promote a version says, and what the API answers."""

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from service.answers import Answer


class AliasChange(BaseModel):
    """Where an alias is to point."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    version: int = Field(ge=1, lt=10**9)
    """Number of the version."""


class ModelLinksRead(Answer):
    """Where a registered model can be looked at."""

    self_: str = Field(alias="self")
    """The model itself."""

    versions: str
    """Its versions."""

    mlflow_model: str
    """Its page in MLflow."""


class ModelRead(Answer):
    """A registered model."""

    name: str
    """Its name, which no other project can have."""

    project: str
    """Whose it is: the project of the first job that registered under the name."""

    aliases: dict[str, int]
    """The number of the version that each alias points at."""

    newest_version: int | None = None
    """Number of the newest version; null if there is none."""

    created_at: datetime | None = None
    """When it was made."""

    links: ModelLinksRead
    """Where it can be looked at."""


class AliasRead(Answer):
    """An alias of a registered model."""

    name: str
    """The registered model."""

    alias: str
    """The alias."""

    version: int
    """Number of the version that it points at."""


class EvaluationRead(Answer):
    """How a version answered the questions of a task; the last evaluation of each counts."""

    task: str
    """The task."""

    metric: str
    """What was measured, such as accuracy."""

    value: float
    """The score."""

    low: float
    """Lower end of its confidence interval."""

    high: float
    """Upper end."""

    num_rows: int
    """Questions."""

    job_id: str
    """The evaluation."""


class VersionLinksRead(Answer):
    """Where a version can be looked at; null while unknown."""

    self_: str = Field(alias="self")
    """The version itself."""

    model: str
    """Its registered model."""

    lineage: str
    """Where it comes from."""

    download: str
    """Its adapter, as a tar."""

    job: str | None = None
    """The job that made it."""

    mlflow_version: str
    """Its page in MLflow."""


class VersionRead(Answer):
    """A version of a registered model: an adapter that never changes.

    What is null was not noted when it was registered, perhaps because no job did that.
    """

    name: str
    """The registered model."""

    version: int
    """Its number."""

    aliases: list[str]
    """Aliases that point at it."""

    uri: str
    """MLflow's URI of it."""

    base_model: str | None = None
    """The base model that it was trained on, as the job's spec named it."""

    base_model_digest: str | None = None
    """Digest of what that was."""

    method: str | None = None
    """Kind of adapter, such as hyplora."""

    rank: int | None = None
    """Its rank."""

    curvature: float | None = None
    """Its curvature K, or where K began if it was learned."""

    job_id: str | None = None
    """The job that made it."""

    trial_id: str | None = None
    """The trial of the search that made it."""

    run_id: str | None = None
    """The MLflow run that made it."""

    scores: dict[str, float]
    """What was measured at the end of its training, by name."""

    evaluations: list[EvaluationRead]
    """How it answered the questions of tasks."""

    created_at: datetime | None = None
    """When it was registered."""

    links: VersionLinksRead
    """Where it can be looked at."""


class LineageKind(StrEnum):
    """What a node of a lineage stands for."""

    DATA = "data"
    BASE_MODEL = "base_model"
    SPEC = "spec"
    CODE = "code"
    JOB = "job"
    TRIAL = "trial"
    RUN = "run"
    MODEL_VERSION = "model_version"


class LineageNode(Answer):
    """Something that a version comes from, or that came of it."""

    id: str
    """Told from the other nodes by this."""

    kind: LineageKind
    """What it is."""

    name: str
    """What people call it."""

    digest: str | None = None
    """Digest of its content, or commit of the hub, where that was noted."""

    link: str | None = None
    """Where it can be looked at."""


class LineageEdge(Answer):
    """That one thing went into another."""

    source: str
    """Id of the node that was there first."""

    target: str
    """Id of the node that came of it."""

    relation: str
    """What the one was to the other, such as `train` or `evaluated`."""

    detail: str | None = None
    """More, such as a score."""


class LineageRead(Answer):
    """Where a version comes from and how it was judged: a graph without circles."""

    nodes: list[LineageNode]
    """The things."""

    edges: list[LineageEdge]
    """What went into what."""

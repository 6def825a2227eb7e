"""The JobSpec union that users submit, and the ticket that a driver receives.

Torch-free, and the only module of this layer that the control plane imports.
"""

import re
from enum import StrEnum
from typing import Literal

from pydantic import Field, field_validator, model_validator

from workers.specs import AdapterSpec, DataSpec, HypLoraSpec, ResourcesSpec, Spec, TrainingSpec

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""Form of job, model and alias names: safe in URLs, file names and MLflow model URIs."""


class RegistrySpec(Spec):
    """Where the finished adapter is registered."""

    model_name: str | None = Field(None, pattern=NAME_PATTERN)
    """Registered model that gets the new version; by default the job's name."""

    alias: str | None = Field(None, pattern=r"^[A-Za-z][A-Za-z0-9._-]{0,63}$")
    """Alias to point at the new version, such as "champion"; by default none is moved."""

    @field_validator("alias")
    @classmethod
    def _alias_is_not_reserved(cls, alias: str | None) -> str | None:
        if alias is not None and (alias == "latest" or re.fullmatch(r"v\d+", alias)):
            raise ValueError(f"{alias!r} is reserved by MLflow; choose another, such as champion")
        return alias


class FinetuneSpec(Spec):
    """Fine-tune a frozen base model with an adapter and register the result."""

    kind: Literal["finetune"]
    """What the job does."""

    name: str = Field(pattern=NAME_PATTERN)
    """Name of the job, for people; need not be unique."""

    base_model: str = Field(min_length=1, max_length=512)
    """A Hugging Face id, the path of a local folder, or an MLflow URI (models:/… or runs:/…)."""

    adapter: AdapterSpec = HypLoraSpec()
    """The adapter to train; HypLoRA by default."""

    data: DataSpec
    """Rows to train on and to hold out."""

    training: TrainingSpec = TrainingSpec()
    """Optimisation settings."""

    resources: ResourcesSpec = ResourcesSpec()
    """What the job asks of the cluster."""

    registry: RegistrySpec = RegistrySpec()
    """Where the adapter is registered."""

    @model_validator(mode="after")
    def _every_worker_gets_rows(self) -> "FinetuneSpec":
        num_workers = self.resources.num_workers
        if isinstance(num_workers, int) and self.training.batch_size % num_workers:
            raise ValueError(
                f"training.batch_size {self.training.batch_size} must be a multiple of "
                f"resources.num_workers {num_workers}"
            )
        if self.training.batch_size < self.resources.most_workers:
            raise ValueError(
                f"training.batch_size {self.training.batch_size} must be at least the most workers "
                f"of resources.num_workers, {self.resources.most_workers}"
            )
        return self

    @property
    def registered_model_name(self) -> str:
        """Name under which the adapter is registered."""
        return self.registry.model_name or self.name


JobSpec = FinetuneSpec
"""Every kind of job; grows into a union discriminated on `kind`."""


class FileRef(Spec):
    """An uploaded data set as a driver finds it."""

    uri: str
    """Where the rows lie: an absolute path on storage that every node sees."""

    sha256: str
    """Digest of the stored bytes, for lineage and to detect damage."""

    num_rows: int
    """Rows that were validated at upload."""


class JobTicket(Spec):
    """A job made ready for its driver: the spec with every reference resolved.

    Travels in an environment variable of the Ray job, which API clients can read: no secrets.
    """

    job_id: str
    """The service's id; also the Ray Train run name, so that a new attempt resumes."""

    attempt: int = Field(ge=1)
    """Counts the submissions of this job."""

    run_id: str
    """The MLflow run that tracks the job."""

    tracking_uri: str
    """MLflow server, as the workers reach it."""

    storage_path: str
    """Folder for checkpoints on storage that every node sees."""

    spec: JobSpec
    """What the user asked for."""

    files: dict[str, FileRef]
    """Every file id that the spec names."""


class DryRunTicket(Spec):
    """What a dry run needs of a job that is not one yet: no run and no storage."""

    spec: JobSpec
    """What the user asks about."""

    files: dict[str, FileRef]
    """Every file id that the spec names."""


DRY_RUN_MARK = "hyplora-dry-run: "
"""Begins the line of a dry run's log that holds its answer as JSON."""

TICKET_VARIABLE = "HYPLORA_JOB_TICKET"
"""Environment variable in which a driver finds its ticket as JSON."""


class RunTag(StrEnum):
    """MLflow run tags through which drivers and the control plane tell each other about a job."""

    JOB_ID = "hyplora.job_id"
    FAILURE_CODE = "hyplora.failure_code"
    FAILURE_MESSAGE = "hyplora.failure_message"
    MODEL_NAME = "hyplora.model_name"
    MODEL_VERSION = "hyplora.model_version"
    DATA_LEVEL = "hyplora.data_level"
    """"warning" if questions of an evaluation set are trained on, else "info"."""
    DATA_SUMMARY = "hyplora.data_summary"
    """One line on the rows; the whole report is the artifact data_report.json. Set last."""
    RESTART = "hyplora.restart"
    """Begins the tags `hyplora.restart.ATTEMPT.NUMBER`, each a reason why workers were lost."""

"""What OpenAI's clients are answered, in their own forms; `hyplora` is what those have no word for.

Moments are whole seconds since 1970.
"""

from typing import Any, Generic, Literal, TypeVar

from service.answers import Answer, LinksRead, ProgressRead

OpenAiStatus = Literal[
    "validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"
]

OpenAiFileStatus = Literal["uploaded", "processed", "error"]
OpenAiLevel = Literal["info", "warn", "error"]


class Listed(Answer):
    """Base of what lists hold."""

    id: str
    """Stable id; as `after`, it asks for what follows."""


Item = TypeVar("Item", bound=Listed)


class OpenAiPage(Answer, Generic[Item]):
    """A part of a list."""

    object: Literal["list"] = "list"
    """What this is."""

    data: list[Item]
    """The items of this part."""

    has_more: bool
    """Whether another part follows."""

    first_id: str | None
    """Id of the first item."""

    last_id: str | None
    """Id of the last item."""

    @classmethod
    def of(cls, data: list[Item], has_more: bool) -> "OpenAiPage[Item]":
        """A part of a list by its items."""
        first, last = (data[0].id, data[-1].id) if data else (None, None)
        return cls(data=data, has_more=has_more, first_id=first, last_id=last)


class JobErrorRead(Answer):
    """Why a job failed."""

    code: str
    """Stable reason; docs/api.md says what to do about each."""

    message: str
    """A sentence for the user."""

    param: str | None
    """The field at fault, where it is one."""


class HyperparametersRead(Answer):
    """Settings of the training as they really are."""

    batch_size: int
    """Rows in one optimizer step."""

    learning_rate_multiplier: float
    """Peak learning rate in units of the default."""

    n_epochs: int
    """Passes over the training rows."""


class SupervisedRead(Answer):
    """The settings of supervised fine-tuning."""

    hyperparameters: HyperparametersRead
    """As they really are."""


class MethodRead(Answer):
    """How the model is tuned."""

    type: Literal["supervised"] = "supervised"
    """The one method of OpenAI's that there is here."""

    supervised: SupervisedRead
    """Its settings."""

    hyplora: dict[str, Any]
    """The adapter and the sections of the specification, with defaults filled in; sent back as it
    is, it asks for the same."""


class HypLoraJobRead(Answer):
    """What OpenAI has no words for."""

    name: str
    """Name of the job, made from the suffix or the base model."""

    status: str
    """This service's own word, such as pausing."""

    progress: ProgressRead | None
    """How far the job is."""

    links: LinksRead
    """Where else the job can be looked at."""


class FineTuningJobRead(Listed):
    """A fine-tune."""

    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    """What this is."""

    created_at: int
    """When the job was accepted."""

    finished_at: int | None
    """When it reached its final state."""

    estimated_finish: int | None
    """When a running job will probably end."""

    status: OpenAiStatus
    """Where the job stands; `running` until it has really stopped."""

    error: JobErrorRead | None
    """Why it failed."""

    model: str
    """The base model."""

    fine_tuned_model: str | None
    """Id of the adapter, once it is registered."""

    organization_id: str
    """The project whose job it is."""

    training_file: str
    """The training rows."""

    validation_file: str | None
    """The held-out rows."""

    result_files: list[str]
    """Files with what was measured."""

    trained_tokens: int | None
    """Tokens trained on, over all epochs; null until the job has ended."""

    seed: int
    """Seed of the training."""

    hyperparameters: HyperparametersRead
    """As in `method`, for older clients."""

    method: MethodRead
    """How the model is tuned."""

    integrations: list[Any]
    """None are offered."""

    metadata: dict[str, str]
    """The user's facts to find it by."""

    hyplora: HypLoraJobRead
    """What OpenAI has no words for."""


class FineTuningEventRead(Listed):
    """An entry of a job's history."""

    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    """What this is."""

    created_at: int
    """When it happened."""

    level: OpenAiLevel
    """How much it matters."""

    message: str
    """A sentence for people."""

    type: Literal["message", "metrics"]
    """Whether `data` holds metrics."""

    data: dict[str, Any]
    """The same for programs."""


class CheckpointMetricsRead(Answer):
    """How good a checkpoint is, as far as it was measured."""

    step: int
    """Optimizer steps that were done."""

    train_loss: float | None
    """Loss of that step."""

    full_valid_loss: float | None
    """Loss on the held-out rows at the last evaluation by then."""


class HypLoraCheckpointRead(Answer):
    """What OpenAI has no words for."""

    is_kept: bool | None
    """Whether it is still stored; null where the service cannot see the storage."""

    size_bytes: int | None
    """How much it takes, if it is stored."""


class FineTuningCheckpointRead(Listed):
    """A checkpoint that a training has stored."""

    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    """What this is."""

    created_at: int
    """When it was stored whole."""

    fine_tuning_job_id: str
    """The job."""

    fine_tuned_model_checkpoint: str
    """Id of the adapter that was made of it; its own, if none was."""

    step_number: int
    """Optimizer steps that were done."""

    metrics: CheckpointMetricsRead
    """How good it is."""

    hyplora: HypLoraCheckpointRead
    """What OpenAI has no words for."""


class FileObjectRead(Listed):
    """A data set, or what a job has measured."""

    object: Literal["file"] = "file"
    """What this is."""

    bytes: int
    """Length of what was uploaded."""

    created_at: int
    """When the upload, or the job, ended."""

    filename: str
    """Name that an upload had on the user's machine."""

    purpose: Literal["fine-tune", "fine-tune-results"] = "fine-tune"
    """Data sets are for the one, a job's losses are the other."""

    status: OpenAiFileStatus
    """Whether its rows are validated: not yet, all of them, or one is not valid."""

    status_details: str | None
    """Which row is not valid."""


class OpenAiModelRead(Listed):
    """A registered adapter."""

    object: Literal["model"] = "model"
    """What this is."""

    created: int
    """When it was registered; 0 if that is unknown."""

    owned_by: str
    """The project whose it is."""


class ModelsRead(Answer):
    """All registered models."""

    object: Literal["list"] = "list"
    """What this is."""

    data: list[OpenAiModelRead]
    """The newest version of each."""


class OpenAiDeletedRead(Answer):
    """What was deleted."""

    id: str
    """What it was called."""

    object: Literal["file", "model"]
    """What it was."""

    deleted: bool = True
    """That it is gone."""

"""Fine-tunes and their history as OpenAI's clients read them."""

from datetime import timedelta
from typing import Any

from service.answers import FailureRead, JobRead, ModelVersionRead
from service.checkpoints import StoredCheckpoint
from service.file_states import FileStatus
from service.models import OwnedModel, OwnedVersion
from service.openai.answers import (
    CheckpointMetricsRead,
    FileObjectRead,
    FineTuningCheckpointRead,
    FineTuningEventRead,
    FineTuningJobRead,
    HyperparametersRead,
    HypLoraCheckpointRead,
    HypLoraJobRead,
    JobErrorRead,
    MethodRead,
    OpenAiFileStatus,
    OpenAiLevel,
    OpenAiModelRead,
    OpenAiStatus,
    SupervisedRead,
)
from service.openai.model_ids import ModelId
from service.openai.specs import DEFAULT_LEARNING_RATE, IN_OPENAI_FIELDS, SECTIONS
from service.states import JobStatus
from service.tables import Job, JobEvent, UploadedFile
from workers.specs import FailureCode

_STATUSES: dict[JobStatus, OpenAiStatus] = {
    JobStatus.QUEUED: "queued",
    JobStatus.RUNNING: "running",
    # Not over yet: either can still end in another way.
    JobStatus.PAUSING: "running",
    JobStatus.CANCELLING: "running",
    JobStatus.PAUSED: "paused",
    JobStatus.SUCCEEDED: "succeeded",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "cancelled",
}
_FILE_STATUSES: dict[FileStatus, OpenAiFileStatus] = {
    FileStatus.VALIDATING: "uploaded",
    FileStatus.READY: "processed",
    FileStatus.INVALID: "error",
}
_FIELDS_AT_FAULT = {
    FailureCode.BASE_MODEL_NOT_FOUND: "model",
    FailureCode.BASE_MODEL_UNUSABLE: "model",
    FailureCode.DATA_INVALID: "training_file",
    FailureCode.DATA_LEAKED: "training_file",
    FailureCode.ROW_TOO_LONG: "training_file",
    FailureCode.TARGET_MODULES_NOT_FOUND: "method.hyplora.target_modules",
    FailureCode.RESOURCES_UNAVAILABLE: "method.hyplora.resources",
}
_LEVELS: dict[str, OpenAiLevel] = {"warning": "warn", "error": "error"}


def fine_tuning_job(job: Job, read: JobRead, is_unchecked: bool) -> FineTuningJobRead:
    """A fine-tune in OpenAI's form.

    Args:
        job: Its record.
        read: The same as this service's own API answers it.
        is_unchecked: Whether rows that it waits for are still being validated.
    """
    data, training = read.spec["data"], read.spec["training"]
    hyperparameters = HyperparametersRead(
        batch_size=training["batch_size"],
        learning_rate_multiplier=_multiplier(training["learning_rate"]),
        n_epochs=training["num_epochs"],
    )
    version = read.model_version
    return FineTuningJobRead(
        id=read.id,
        created_at=int(read.created_at.timestamp()),
        finished_at=int(read.finished_at.timestamp()) if read.finished_at else None,
        estimated_finish=_estimated_finish(job, read),
        status="validating_files" if is_unchecked else _STATUSES[read.status],
        error=_error(read.failure) if read.failure else None,
        model=read.spec["base_model"],
        fine_tuned_model=_adapter_id(version) if version else None,
        organization_id=read.project,
        training_file=_source(data["train"]),
        validation_file=_source(data["validation"]) if data["validation"] else None,
        result_files=result_file_ids(job),
        trained_tokens=read.progress.num_tokens if read.terminal and read.progress else None,
        seed=training["seed"],
        hyperparameters=hyperparameters,
        method=MethodRead(
            supervised=SupervisedRead(hyperparameters=hyperparameters), hyplora=_options(read.spec)
        ),
        integrations=[],
        metadata=read.metadata,
        hyplora=HypLoraJobRead(
            name=read.name, status=read.status, progress=read.progress, links=read.links
        ),
    )


def fine_tuning_checkpoint(job: Job, checkpoint: StoredCheckpoint) -> FineTuningCheckpointRead:
    """A checkpoint in OpenAI's form."""
    made = job.model_version if checkpoint.model_version else None
    return FineTuningCheckpointRead(
        id=checkpoint.id,
        created_at=int(checkpoint.created_at.timestamp()),
        fine_tuning_job_id=job.id,
        fine_tuned_model_checkpoint=(
            _adapter_id(ModelVersionRead.model_validate(made)) if made else checkpoint.id
        ),
        step_number=checkpoint.step,
        metrics=CheckpointMetricsRead(
            step=checkpoint.step,
            train_loss=checkpoint.train_loss,
            full_valid_loss=checkpoint.eval_loss,
        ),
        hyplora=HypLoraCheckpointRead(is_kept=checkpoint.is_kept, size_bytes=checkpoint.size_bytes),
    )


def result_file_ids(job: Job) -> list[str]:
    """Ids of files with what a job has measured; none before its end, or without a step."""
    has_any = job.terminal and job.run_id is not None and job.progress is not None
    return [f"result-{job.id.removeprefix('job-')}"] if has_any else []


def file_object(file: UploadedFile) -> FileObjectRead:
    """A data set in OpenAI's form."""
    return FileObjectRead(
        id=file.id,
        bytes=file.size_bytes,
        created_at=int(file.created_at.timestamp()),
        filename=file.filename,
        status=_FILE_STATUSES[file.status],
        status_details=file.problem,
    )


def registered_version(owned: OwnedVersion) -> OpenAiModelRead:
    """A registered adapter in OpenAI's form."""
    version = owned.version
    return OpenAiModelRead(
        id=str(ModelId(version.name, version.version)),
        created=int(version.created_at.timestamp()) if version.created_at else 0,
        owned_by=owned.owner.project,
    )


def newest_version(owned: OwnedModel) -> OpenAiModelRead | None:
    """The newest adapter of a registered model; None if it has none."""
    model = owned.model
    if model.newest_version is None:
        return None
    return OpenAiModelRead(
        id=str(ModelId(model.name, model.newest_version)),
        created=int(model.created_at.timestamp()) if model.created_at else 0,
        owned_by=owned.project,
    )


def fine_tuning_event(event: JobEvent) -> FineTuningEventRead:
    """An entry of a job's history in OpenAI's form."""
    data = event.data
    is_metrics = event.type == "progress"
    return FineTuningEventRead(
        id=event_id(event.id),
        created_at=int(event.created_at.timestamp()),
        level=_level(data),
        message=_sentence(event.type, data),
        type="metrics" if is_metrics else "message",
        data=_metrics(data) if is_metrics else data,
    )


def event_id(number: int) -> str:
    """The id of an event for OpenAI's clients."""
    return f"ftevent-{number}"


def _adapter_id(version: ModelVersionRead) -> str:
    return str(ModelId(version.name, int(version.version)))


def _multiplier(learning_rate: float) -> float:
    """Rounded, so that what was asked for comes back in spite of the product's rounding."""
    return float(f"{learning_rate / DEFAULT_LEARNING_RATE:.12g}")


def _estimated_finish(job: Job, read: JobRead) -> int | None:
    seconds = read.progress.seconds_left if read.progress else None
    if read.status is not JobStatus.RUNNING or seconds is None or job.progress_at is None:
        return None
    return int((job.progress_at + timedelta(seconds=seconds)).timestamp())


def _error(failure: FailureRead) -> JobErrorRead:
    at_fault = {str(code): field for code, field in _FIELDS_AT_FAULT.items()}
    return JobErrorRead(
        code=failure.code, message=failure.message, param=at_fault.get(failure.code)
    )


def _source(source: str | dict[str, Any]) -> str:
    """The id of a file or the URL; of a data set of the hub its id alone."""
    return source if isinstance(source, str) else str(source["dataset"])


def _options(spec: dict[str, Any]) -> dict[str, Any]:
    sections = {name: value for name, value in spec.items() if name in SECTIONS}
    data, training = sections["data"], sections["training"]
    sections["data"] = {
        name: value for name, value in data.items() if name not in {"train", "validation"}
    }
    sections["training"] = {
        name: value for name, value in training.items() if name not in IN_OPENAI_FIELDS
    }
    return spec["adapter"] | sections


def _level(data: dict[str, Any]) -> OpenAiLevel:
    if data.get("status") == JobStatus.FAILED:
        return "error"
    return _LEVELS.get(data.get("level", ""), "info")


def _sentence(kind: str, data: dict[str, Any]) -> str:
    if kind == "message":
        return str(data["text"])
    if kind == "status":
        reason = f": {data['reason']}" if data.get("reason") else ""
        return f"The job is {data['status']}{reason}"
    loss = "" if data.get("loss") is None else f": training loss {data['loss']:.4g}"
    return f"Step {data.get('step')}/{data.get('total_steps')}{loss}"


def _metrics(progress: dict[str, Any]) -> dict[str, Any]:
    """Progress with the losses under OpenAI's names, too."""
    losses = {"train_loss": progress.get("loss"), "full_valid_loss": progress.get("eval_loss")}
    return progress | {name: loss for name, loss in losses.items() if loss is not None}

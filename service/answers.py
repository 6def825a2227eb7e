"""What the HTTP API answers, as clients read it: open to fields that a newer service adds."""

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from service.errors import FieldError
from service.file_states import FileStatus
from service.states import JobStatus


class Answer(BaseModel):
    """Base of everything the service answers."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
        validate_by_name=True,
        serialize_by_alias=True,
    )


Item = TypeVar("Item", bound=Answer)


class Page(Answer, Generic[Item]):
    """A part of a list."""

    data: list[Item]
    """The items of this part."""

    has_more: bool = False
    """Whether another part follows; ask for it with `after` set to the last id of this one."""


class FileRead(Answer):
    """An uploaded data set."""

    id: str
    """Stable id, `file-` and 16 hexadecimal digits."""

    project: str = "default"
    """Whose it is: the project of the key that uploaded it."""

    filename: str
    """Name that the file had on the user's machine."""

    size_bytes: int
    """Length of the stored bytes."""

    sha256: str
    """Digest of the stored bytes."""

    status: FileStatus = FileStatus.READY
    """Where it stands; a job that names it begins once it is `ready`."""

    num_rows: int | None = None
    """Rows that were validated; null until all are."""

    problem: str | None = None
    """Why it is `invalid`, in a sentence."""

    errors: list[FieldError] = []
    """The row that is not valid, by line and field."""

    created_at: datetime
    """When the upload ended."""


class ProgressRead(Answer):
    """How far a job is; what is not known yet is null."""

    step: int | None = None
    """What is done: optimizer steps; trials of a search that have ended; rows that an evaluation
    has asked, counted for each model; trainings and evaluations of a comparison; parts of an
    analysis."""

    total_steps: int | None = None
    """How many of these there are to do."""

    loss: float | None = None
    """Training loss of the last reported step."""

    tokens_per_s: float | None = None
    """Tokens trained on a second, over all workers."""

    seconds_left: float | None = None
    """Estimated time until the last step is done."""

    eval_loss: float | None = None
    """Loss on the held-out rows at the last evaluation."""

    checkpoint_step: int | None = None
    """Step of the last checkpoint that was stored: a stopped job resumes from there."""

    num_tokens: int | None = None
    """Tokens trained on so far, padding aside."""


class SearchRead(Answer):
    """What is known of a search's trials together."""

    num_trials: int | None = None
    """Trials that the budget allows; null while unknown."""

    num_ended: int = 0
    """Trials that have ended, however they did."""

    best_trials: list[str] = []
    """Ids of the best trials so far, the best first; with several objectives, the Pareto set."""

    best: dict[str, float] = {}
    """Best value so far of each objective, by metric."""


class FailureRead(Answer):
    """Why a job failed."""

    code: str
    """Stable reason; docs/api.md says what to do about each."""

    message: str
    """A sentence for the user."""

    log_tail: str | None = None
    """Last lines of the driver's log."""


class ModelVersionRead(Answer):
    """The registered model version that a job made."""

    name: str
    """Registered model."""

    version: str
    """Number of the version."""

    alias: str | None = None
    """Alias that was pointed at the version."""

    uri: str
    """MLflow's URI of the version."""


class LinksRead(Answer):
    """Where a job can be looked at; null while unknown."""

    self_: str | None = Field(None, alias="self")
    """The job itself."""

    events: str | None = None
    """Its history."""

    logs: str | None = None
    """Its driver's log."""

    rerun_of: str | None = None
    """The job that this one does again."""

    metrics: str | None = None
    """Its metrics, as series."""

    checkpoints: str | None = None
    """The checkpoints of a fine-tune."""

    artifacts: str | None = None
    """The files of its MLflow run."""

    trials: str | None = None
    """The trials of a search."""

    report: str | None = None
    """What the job finds; null for a fine-tune without `analysis`, which looks for nothing."""

    ray_dashboard: str | None = None
    """Page of the Ray dashboard."""

    mlflow_run: str | None = None
    """Page of the MLflow run."""

    model_version: str | None = None
    """Page of the registered model version."""


class ReportFileRead(Answer):
    """A file of a job's report."""

    name: str
    """Its name, such as report.md."""

    size_bytes: int
    """Its length."""

    media_type: str
    """What it is, such as image/png."""


class JobRead(Answer):
    """The record of a job."""

    id: str
    """Stable id, `job-` and 16 hexadecimal digits."""

    kind: str
    """What the job does."""

    name: str
    """The user's name for it."""

    project: str = "default"
    """Whose job it is."""

    tags: list[str] = []
    """The user's words to find it by."""

    metadata: dict[str, str] = Field({}, validation_alias=AliasChoices("facts", "metadata"))
    """The user's facts to find it by."""

    priority: int = 0
    """Its place in the queue: the higher comes first."""

    rerun_of: str | None = None
    """The job that was done again, of which this one's spec was made."""

    status: JobStatus
    """Where the job stands."""

    terminal: bool
    """Whether the state is final."""

    spec: dict[str, Any]
    """What the user asked for, with defaults filled in."""

    attempt: int
    """Submissions to the cluster so far."""

    created_at: datetime
    """When the job was accepted."""

    started_at: datetime | None = None
    """When it was first submitted to the cluster."""

    finished_at: datetime | None = None
    """When it reached its final state."""

    data_summary: str | None = None
    """One line on the rows, once they are read; the run's data_report.json says more."""

    progress: ProgressRead | None = None
    """How far the job is."""

    search: SearchRead | None = None
    """What is known of a search's trials; null for other jobs, and before the search has begun."""

    summary: str | None = None
    """One line on what an evaluation, a comparison or an analysis found; the report says more."""

    failure: FailureRead | None = None
    """Why the job failed."""

    model_version: ModelVersionRead | None = None
    """What the job made."""

    links: LinksRead = LinksRead()
    """Where else the job can be looked at."""


class MemoryRead(Answer):
    """Memory of one worker at its peak, in bytes, on the device where it trains; an estimate."""

    base_model: int
    """The frozen weights."""

    adapter: int
    """The adapter's weights and their gradients."""

    optimizer: int
    """AdamW's two moments."""

    activations: int
    """What the largest forward pass keeps for its backward pass."""

    logits: int
    """Scores of the vocabulary at the answers' tokens, and their gradients."""

    framework: int
    """The process without a model."""

    total: int
    """All of it."""


class PlacementRead(Answer):
    """Whether the cluster can ever place a job's workers, on the nodes that it has now."""

    possible: bool
    """Whether it can once nothing else runs there; if not, the job would fail or wait forever."""

    reason: str | None = None
    """Why not, and what to do."""

    device: Literal["cpu", "gpu"]
    """What the workers would train on."""


class DryRunRead(Answer):
    """What a job would come to; nothing of it is kept."""

    steps: int | None = None
    """Optimizer steps to do; of a search or a comparison, by one training. Null without one."""

    num_train_rows: int | None = None
    """Rows to train on."""

    num_held_out_rows: int | None = None
    """Rows held out for the evaluation loss."""

    num_trainings: int | None = None
    """Trainings of a comparison, those that choose the learning rates included."""

    num_evaluations: int | None = None
    """How often a task is answered, by one model each; of an evaluation or a comparison."""

    num_questions: int | None = None
    """Rows of all tasks, or rows that are analyzed, each counted once."""

    num_tokens: int
    """Tokens of the rows to train on, or of the prompts where nothing is trained; each row once."""

    longest_row: int
    """Tokens of the longest row, or prompt."""

    num_trainable_parameters: int | None = None
    """Size of the adapter to train."""

    num_parameters: int
    """Size of the base model, with the adapter to train."""

    memory: MemoryRead | None = None
    """Estimated memory of each training's worker; null where it cannot be foretold."""

    memory_fits: bool | None = None
    """Whether the workers' memory is there; null where that is unknown, as it is for GPUs."""

    memory_reason: str | None = None
    """What is missing or unknown."""

    placement: PlacementRead
    """Whether the cluster can ever place the workers."""


class EventRead(Answer):
    """One entry of a job's history."""

    id: int
    """Grows with time; the `Last-Event-ID` from which a stream resumes."""

    job_id: str
    """The job."""

    created_at: datetime
    """When it happened."""

    type: Literal["status", "progress", "message"]
    """What `data` holds."""

    data: dict[str, Any]
    """status: status, previous, terminal, reason; progress: ProgressRead; message: level, text."""


class HealthRead(Answer):
    """That the service's process is alive."""

    status: Literal["ok"]
    """In one word."""

    version: str
    """Version of the service."""


class InfoRead(Answer):
    """What a client needs to know about a service."""

    version: str
    """Version of the service."""

    mlflow_tracking_uri: str
    """MLflow server, as clients reach it."""

    ray_dashboard_url: str
    """Ray dashboard, as a browser reaches it."""


class CheckRead(Answer):
    """Whether one thing that the service needs works."""

    ok: bool
    """Whether it does."""

    detail: str | None = None
    """What is wrong, or what was found."""


class ReadinessRead(Answer):
    """Whether the service can work."""

    status: str
    """In one word."""

    checks: dict[str, CheckRead]
    """One entry each for the database, Ray and MLflow."""

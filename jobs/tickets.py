"""What a driver receives about its job, and the tags by which it tells what became of it.

Torch-free: the control plane writes the one and reads the other.
"""

from enum import StrEnum

from pydantic import Field

from jobs.specs import JobSpec
from workers.reach import Reach
from workers.specs import Spec


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

    start_deadline_s: float = Field(0, ge=0)
    """Time that the cluster has to start nodes that are large enough (seconds)."""

    spec: JobSpec
    """What the user asked for."""

    reach: Reach = Reach()
    """What the job may read, whatever the spec says."""

    files: dict[str, FileRef]
    """Every file id that the spec names."""


class DryRunTicket(Spec):
    """What a dry run needs of a job that is not one yet: no run and no storage."""

    spec: JobSpec
    """What the user asks about."""

    reach: Reach = Reach()
    """What the job may read, whatever the spec says."""

    files: dict[str, FileRef]
    """Every file id that the spec names."""


DRY_RUN_MARK = "hyplora-dry-run: "
"""Begins the line of a dry run's log that holds its answer as JSON."""

TICKET_VARIABLE = "HYPLORA_JOB_TICKET"
"""Environment variable in which a driver finds its ticket as JSON."""


class RunTag(StrEnum):
    """MLflow run tags through which drivers and the control plane tell each other about a job."""

    JOB_ID = "hyplora.job_id"
    PROJECT = "hyplora.project"
    TAGS = "hyplora.tags"
    """The user's words for the job, with commas between them."""
    METADATA = "hyplora.metadata"
    """Begins the tags `hyplora.metadata.KEY`, the user's facts about the job."""
    PRIORITY = "hyplora.priority"
    FAILURE_CODE = "hyplora.failure_code"
    FAILURE_MESSAGE = "hyplora.failure_message"
    MODEL_NAME = "hyplora.model_name"
    MODEL_VERSION = "hyplora.model_version"
    DATA_LEVEL = "hyplora.data_level"
    """"warning" if questions of an evaluation set are trained on, else "info"."""
    DATA_SUMMARY = "hyplora.data_summary"
    """One line on the rows; the whole report is the artifact data_report.json. Set last."""
    SUMMARY = "hyplora.summary"
    """One line on what an evaluation, a comparison or an analysis found; the whole is the artifact
    KIND/report.json, and KIND/report.md for people. Set last: it says that the job is done."""
    BASE_MODEL = "hyplora.base_model"
    """Of a comparison: the base model of all its attempts, a version where the user gave an
    alias."""
    TRAINING = "hyplora.training"
    """Of a child run: which training of the comparison it tracks, such as
    "lora-lr0.0003-seed0"."""
    TRAINING_RECORD = "hyplora.training_record"
    """Of a child run: what became of its training, as the JSON of a `TrainingRecord`. Set last."""
    RESTART = "hyplora.restart"
    """Begins the tags `hyplora.restart.ATTEMPT.NUMBER`, each a reason why workers were lost."""
    TRIAL_ID = "hyplora.trial_id"
    """Of a child run: which trial of the search it tracks, such as "trial-0007"."""
    TRIAL_VALUES = "hyplora.trial_values"
    """Of a child run: the values of the searched fields as JSON, {"adapter.r": 8, …}."""
    TRIAL_STATE = "hyplora.trial_state"
    TRIAL_REASON = "hyplora.trial_reason"
    """Of a child run: why its trial ended before its last step, or failed."""
    CANCEL_REQUESTED = "hyplora.cancel_requested"
    """Of a child run, set to "true" by the control plane: the trial is to end."""
    BEST_TRIALS = "hyplora.best_trials"
    """Of a search's run: ids of the best trials so far as JSON, the first the best; with several
    objectives, the Pareto set."""


class TrialState(StrEnum):
    """Where a trial of a search stands."""

    RUNNING = "running"
    COMPLETED = "completed"
    """Trained to its last step, with every seed."""
    STOPPED = "stopped"
    """Ended early by the search itself."""
    CANCELLED = "cancelled"
    FAILED = "failed"


def objective_metric(metric: str) -> str:
    """MLflow metric of a trial's objective: the mean over its seeds, at its last step.

    In the search's own run: the best so far, over the number of trials that have ended.
    """
    return f"objective/{metric}"


def objective_error(metric: str) -> str:
    """MLflow metric of the standard error of a trial's objective; absent with one seed."""
    return f"objective_error/{metric}"


TRIAL_START_SECONDS = "trial/start_seconds"
"""MLflow metric: time from when a trial was given its process to its first optimizer step."""

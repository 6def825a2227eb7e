"""What the HTTP API answers about what a job's run has left: checkpoints and files."""

from datetime import datetime

from service.answers import Answer


class CheckpointRead(Answer):
    """A checkpoint that a training has stored."""

    id: str
    """Stable id: `ckpt-`, the digits of the job's and the step."""

    job_id: str
    """The job."""

    step: int
    """Optimizer steps that were done."""

    created_at: datetime
    """When it was stored whole."""

    train_loss: float | None = None
    """Loss of that step, in nats an answer token."""

    eval_loss: float | None = None
    """Loss on the held-out rows at the last evaluation by then; null before the first."""

    is_kept: bool | None = None
    """Whether it is still stored: older ones than `training.kept_checkpoints` are removed. Null
    where the service cannot see the storage."""

    size_bytes: int | None = None
    """How much it takes, if it is stored."""

    model_version: str | None = None
    """MLflow's URI of the model version that was made of it."""


class ArtifactRead(Answer):
    """A file that is kept with a job's MLflow run."""

    path: str
    """Where it lies, such as logs/attempt-1.log."""

    size_bytes: int
    """Its length."""

    media_type: str
    """What it is, such as image/png."""

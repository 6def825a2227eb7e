"""One training of a comparison, and what became of it. Torch-free."""

import math
from dataclasses import dataclass

from workers.document import Document


@dataclass(frozen=True)
class Training:
    """What is trained: a method, at one learning rate, with one seed."""

    method: str
    learning_rate: float
    seed: int

    @property
    def name(self) -> str:
        """Of its run in MLflow; no other training of the comparison has it."""
        return f"{self.method}-lr{self.learning_rate}-seed{self.seed}"

    def folder_of(self, job_id: str) -> str:
        """Folder of its checkpoints within the storage of a job."""
        return f"{job_id}-{self.name}"


class TrainingRecord(Document):
    """What became of a training that has ended; kept, so that it is never repeated."""

    checkpoint: str | None = None
    """Name of the last checkpoint in the training's folder; None where the training failed."""

    failure: str | None = None
    """Why it failed."""

    eval_loss: float | None = None
    """The validation rows' negative log-likelihood (nats an answer token); None where there are no
    such rows, or it is not finite."""

    train_loss: float | None = None
    """Mean over the last step's answer tokens (nats); None where the training failed."""

    steps: int = 0
    """Optimizer steps."""

    num_trainable_parameters: int = 0
    """Size of the adapter."""

    seconds: float = 0.0
    """Time of the optimizer steps and of what is measured between them."""

    peak_memory_bytes: int | None = None
    """Most memory that it took on its GPU; None where that was not measured."""

    @property
    def nll(self) -> float:
        """What the learning rate is chosen by; NaN where the training diverged or failed."""
        return math.nan if self.eval_loss is None else self.eval_loss

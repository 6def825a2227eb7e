"""What goes on record of a training that has ended."""

import math

from jobs.comparison.training import TrainingRecord
from workers.specs import FailureCode
from workers.train_loop import TrainResult


def record_of(
    result: TrainResult, checkpoint: str, peak_memory_bytes: int | None = None
) -> TrainingRecord:
    """Of one that has done all its steps.

    Args:
        result: What it came to.
        checkpoint: Name of its last checkpoint.
        peak_memory_bytes: Most memory on its GPU; None where that was not measured.
    """
    return TrainingRecord(
        checkpoint=checkpoint,
        eval_loss=_finite(result.eval_loss),
        train_loss=_finite(result.train_loss),
        steps=result.steps,
        num_trainable_parameters=result.num_trainable_parameters,
        seconds=result.seconds,
        peak_memory_bytes=peak_memory_bytes,
    )


def failed(code: FailureCode, error: Exception) -> TrainingRecord:
    """Of one that another attempt would only repeat."""
    return TrainingRecord(failure=f"{code}: {error}")


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None

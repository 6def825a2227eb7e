"""Errors that a training rank raises for what a user can act on, each with its stable code.

They cross process boundaries, so the message is the only argument: it says what was given,
what was expected and what to do next.
"""

from typing import ClassVar

from workers.specs import FailureCode


class WorkerError(Exception):
    """Base of all errors of this package that a user can act on."""

    code: ClassVar[FailureCode] = FailureCode.INTERNAL


class BaseModelNotFoundError(WorkerError):
    """The base model is neither a folder here, nor on the Hugging Face hub, nor in MLflow."""

    code = FailureCode.BASE_MODEL_NOT_FOUND


class BaseModelUnusableError(WorkerError):
    """The base model was found and cannot be loaded or trained."""

    code = FailureCode.BASE_MODEL_UNUSABLE


class ReferenceNotAllowedError(WorkerError):
    """A base model, an adapter or a source of rows that jobs may not read."""

    code = FailureCode.REFERENCE_NOT_ALLOWED


class DataInvalidError(WorkerError):
    """The rows cannot be read, or are too few for what was asked."""

    code = FailureCode.DATA_INVALID


class DataLeakedError(WorkerError):
    """Rows that the adapter will be judged by are among those it is to learn from."""

    code = FailureCode.DATA_LEAKED


class RowTooLongError(WorkerError):
    """A row or a prompt has more tokens than the model or the spec admits."""

    code = FailureCode.ROW_TOO_LONG


class TargetModulesNotFoundError(WorkerError):
    """The adapter's target modules match nothing in the base model that can be adapted."""

    code = FailureCode.TARGET_MODULES_NOT_FOUND


class LossNotFiniteError(WorkerError):
    """The loss or the gradient became infinite or NaN."""

    code = FailureCode.LOSS_NOT_FINITE


class OutOfMemoryError(WorkerError):
    """A worker has less memory than the training needs."""

    code = FailureCode.OUT_OF_MEMORY


class StorageFullError(WorkerError):
    """A checkpoint does not fit on the disk."""

    code = FailureCode.STORAGE_FULL


class CheckpointDamagedError(WorkerError):
    """A checkpoint is incomplete, or other bytes than were written."""

    code = FailureCode.CHECKPOINT_DAMAGED


class AdapterUnusableError(WorkerError):
    """An adapter is incomplete or damaged, or it or a checkpoint is made for something else."""

    code = FailureCode.ADAPTER_UNUSABLE


class PredictionsUnusableError(WorkerError):
    """A file of predictions is damaged, or holds those of another evaluation."""

    code = FailureCode.DATA_INVALID

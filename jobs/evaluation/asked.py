"""Everything that one evaluation asks."""

from collections.abc import Mapping
from dataclasses import dataclass

from jobs.task_specs import TaskSpec
from jobs.tickets import FileRef
from workers.generate import MAX_NEW_TOKENS
from workers.predictions import Mode
from workers.specs import ChatTemplateName


@dataclass(frozen=True)
class Asked:
    """What one evaluation asks of whom; travels to the workers."""

    base_model: str
    """A Hugging Face id, a folder or an MLflow URI, which must not be an alias: see `models`."""

    models: Mapping[str, str | None]
    """The adapter of each model by the model's name: the path of a folder that every node sees, or
    an MLflow URI, which each node downloads once; None for the base model as it is.

    Each must name the same weights for ever, so no alias: see `workers.mlflow_download.pin`.
    Workers find MLflow by MLFLOW_TRACKING_URI, which `jobs.cluster.connect` gives them."""

    tasks: tuple[TaskSpec, ...]
    """What all models are asked; no two of one name."""

    files: Mapping[str, FileRef]
    """Uploaded files by id."""

    mode: Mode = "generation"
    """How they are asked."""

    dtype: str = "auto"
    """Precision of the base model; "auto" keeps the one it is stored in."""

    max_new_tokens: int = MAX_NEW_TOKENS
    """Most tokens of an answer."""

    batch_rows: int = 32
    """Most rows that a worker answers at the same time."""

    chat_template: ChatTemplateName | None = None
    """Layout of a conversation; by default the one that the adapters were trained with."""

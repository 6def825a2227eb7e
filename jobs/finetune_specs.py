"""What a user asks for to fine-tune one adapter. Torch-free."""

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from jobs.label_specs import NAME_PATTERN, LabelledSpec
from workers.analysis_spec import AnalysisSpec
from workers.specs import (
    AdapterSpec,
    DataSpec,
    HubDatasetSpec,
    HypLoraSpec,
    ResourcesSpec,
    Spec,
    TrainingSpec,
)

ALIAS_PATTERN = r"^[A-Za-z][A-Za-z0-9_-]{0,63}$"
"""Form of an alias of a registered model."""


def require_free_alias(alias: str) -> None:
    """Raise ValueError for an alias that MLflow keeps for itself."""
    if alias.lower() == "latest" or re.fullmatch(r"[vV]\d+", alias):
        raise ValueError(f"{alias!r} is reserved by MLflow; choose another, such as champion")


class RegistrySpec(Spec):
    """Where the finished adapter is registered."""

    model_name: str | None = Field(None, pattern=NAME_PATTERN)
    """Registered model that gets the new version; by default the job's name."""

    alias: str | None = Field(None, pattern=ALIAS_PATTERN)
    """Alias to point at the new version, such as "champion"; by default none is moved."""

    @field_validator("alias")
    @classmethod
    def _alias_is_not_reserved(cls, alias: str | None) -> str | None:
        if alias is not None:
            require_free_alias(alias)
        return alias


class TuningSpec(LabelledSpec):
    """What every job that trains adapters is about."""

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
    def _every_worker_gets_rows(self) -> Self:
        num_workers = self.resources.num_workers
        if isinstance(num_workers, int) and self.training.batch_size % num_workers:
            raise ValueError(
                f"training.batch_size: {self.training.batch_size} must be a multiple of "
                f"resources.num_workers {num_workers}"
            )
        if self.training.batch_size < self.resources.most_workers:
            raise ValueError(
                f"training.batch_size: {self.training.batch_size} must be at least the most "
                f"workers of resources.num_workers, {self.resources.most_workers}"
            )
        return self

    @model_validator(mode="after")
    def _leaks_are_searched_for(self) -> Self:
        if self.data.leakage != "warn" and not self.data.evaluation_sets:
            raise ValueError(
                f"data.leakage: {self.data.leakage} needs data.evaluation_sets to search for"
            )
        return self

    def sources(self) -> dict[str, str | HubDatasetSpec]:
        """Every source of rows by the field that names it."""
        return self.data.sources()

    @property
    def registered_model_name(self) -> str:
        """Name under which the adapter is registered."""
        return self.registry.model_name or self.name


class FinetuneSpec(TuningSpec):
    """Fine-tune a frozen base model with an adapter and register the result."""

    kind: Literal["finetune"]
    """What the job does."""

    analysis: AnalysisSpec | None = None
    """Measure the geometry before and after on the training rows, once the adapter is registered;
    by default not."""

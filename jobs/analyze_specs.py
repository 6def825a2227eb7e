"""What a user asks for to have the geometry of a model looked at. Torch-free."""

from typing import Literal, Self

from pydantic import Field, model_validator

from jobs.label_specs import LabelledSpec
from jobs.model_specs import ModelChoice, ModelSpec
from workers.analysis_spec import AnalysisSpec
from workers.specs import (
    ChatTemplateName,
    DataSource,
    HubDatasetSpec,
    ResourcesSpec,
    RowField,
)


class AnalyzeSpec(LabelledSpec):
    """Measure a base model, and what an adapter of it changes, on rows of data."""

    kind: Literal["analyze"]
    """What the job does."""

    base_model: str = Field(min_length=1, max_length=512)
    """A Hugging Face id, the path of a local folder, or an MLflow URI (models:/… or runs:/…)."""

    model: ModelChoice = ModelSpec()
    """"base", or an adapter's URI or folder: before and after it are compared."""

    data: DataSource
    """Rows that the prompts and the token counts are of."""

    columns: dict[RowField, str] = Field(default_factory=dict)
    """Fields of the rows under other names, such as {"instruction": "question"}."""

    chat_template: ChatTemplateName | None = None
    """Layout of a conversation; by default the adapter's, else the base model's own, or "plain"."""

    analysis: AnalysisSpec = AnalysisSpec()
    """What is measured, and how exactly."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the base model; "auto" keeps the one it is stored in."""

    resources: ResourcesSpec = ResourcesSpec()
    """What the job asks of the cluster; it has a single worker."""

    @model_validator(mode="after")
    def _has_one_worker(self) -> Self:
        if self.resources.num_workers != 1:
            raise ValueError("resources.num_workers: an analysis has one worker; leave it out")
        return self

    def sources(self) -> dict[str, str | HubDatasetSpec]:
        """Every source of rows by the field that names it."""
        return {"data": self.data}

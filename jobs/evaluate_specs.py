"""What a user asks for to have models judged by tasks. Torch-free."""

from typing import Literal, Self

from pydantic import Field, model_validator

from jobs.finetune_specs import ALIAS_PATTERN, require_free_alias
from jobs.label_specs import LabelledSpec
from jobs.method_specs import require_distinct
from jobs.model_specs import ModelChoice, ModelSpec
from jobs.task_specs import TaskSpec, task_sources
from workers.specs import ChatTemplateName, HubDatasetSpec, ResourcesSpec, Spec


class PromotionSpec(Spec):
    """Point an alias at a model version only if it answers better than the version that has it."""

    alias: str = Field(pattern=ALIAS_PATTERN)
    """The alias, such as "champion". A registered model without it gives it to the candidate."""

    model: str | None = None
    """Name of the candidate among `models`, a model version; by default the only one."""

    level: float = Field(0.05, gt=0, lt=0.5)
    """Largest one-sided p-value of the paired test over all tasks' rows that promotes."""

    @model_validator(mode="after")
    def _alias_is_not_reserved(self) -> Self:
        require_free_alias(self.alias)
        return self


class EvaluateSpec(LabelledSpec):
    """Ask a base model, and adapters of it, the questions of tasks, and score the answers."""

    kind: Literal["evaluate"]
    """What the job does."""

    base_model: str = Field(min_length=1, max_length=512)
    """A Hugging Face id, the path of a local folder, or an MLflow URI (models:/… or runs:/…)."""

    models: tuple[ModelChoice, ...] = Field((ModelSpec(),), min_length=1, max_length=32)
    """The models that are asked, all in one pass over the base model: "base", an adapter's URI or
    folder, or {"name": …, "adapter": …}."""

    tasks: tuple[TaskSpec, ...] = Field(min_length=1, max_length=32)
    """What the models are asked."""

    mode: Literal["generation", "likelihood"] = "generation"
    """Whether models are asked for answers, or choose the likeliest of a question's options."""

    max_new_tokens: int = Field(256, ge=1, le=32768)
    """Most tokens of an answer."""

    batch_rows: int = Field(32, ge=1, le=4096)
    """Most rows that a worker answers at the same time; decides nothing about the answers."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the base model; "auto" keeps the one it is stored in."""

    chat_template: ChatTemplateName | None = None
    """Layout of a conversation; by default the one that the adapters were trained with, else the
    base model's own, else "plain". All models are asked alike."""

    resources: ResourcesSpec = ResourcesSpec()
    """What the job asks of the cluster; rows are spread over `num_workers`."""

    promote_if_better: PromotionSpec | None = None
    """An alias to move if a candidate beats its present holder, which is then asked, too."""

    @model_validator(mode="after")
    def _names_are_clear(self) -> Self:
        require_distinct("models", [model.name for model in self.models])
        require_distinct("tasks", [task.name for task in self.tasks])
        if not isinstance(self.resources.num_workers, int):
            raise ValueError("resources.num_workers: rows are spread once; give one number")
        if self.mode == "likelihood" and any(task.benchmark is None for task in self.tasks):
            raise ValueError(
                "mode: rows with a scorer of one's own have no options to score; use generation"
            )
        return self

    @model_validator(mode="after")
    def _the_candidate_is_a_version(self) -> Self:
        if self.promote_if_better is not None:
            candidate = self.candidate
            assert candidate.adapter is not None
            if not candidate.adapter.startswith("models:/"):
                raise ValueError(
                    f"promote_if_better.model: {candidate.name!r} is no version of a registered "
                    "model (models:/NAME/VERSION); only those have aliases"
                )
        return self

    @property
    def candidate(self) -> ModelSpec:
        """The model that may be promoted.

        Raises:
            ValueError: If the spec does not say which one.
        """
        assert self.promote_if_better is not None
        named = self.promote_if_better.model
        found = [m for m in self.models if m.adapter and named in (None, m.name)]
        if len(found) != 1:
            names = ", ".join(m.name for m in self.models if m.adapter) or "none"
            raise ValueError(f"promote_if_better.model: name one of the adapters ({names})")
        return found[0]

    def sources(self) -> dict[str, str | HubDatasetSpec]:
        """Every source of rows by the field that names it."""
        return task_sources(self.tasks)

"""What a user asks for to compare methods of fine-tuning on equal budgets. Torch-free."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from jobs.finetune_specs import FinetuneSpec
from jobs.label_specs import LabelledSpec
from jobs.method_specs import MethodSpec, PresetName, require_distinct
from jobs.task_specs import TaskSpec, task_sources
from workers.specs import (
    DataSpec,
    HubDatasetSpec,
    LowRankSpec,
    ResourcesSpec,
    TrainingSpec,
)


def _preset_of(value: object) -> object:
    return {"preset": value} if isinstance(value, str) else value


class CompareSpec(LabelledSpec):
    """Train several methods alike, and say which differences their answers show.

    `training` holds for every training; learning rates and seeds are given apart, since the choice
    of the rate is a part of each method and the seeds are what its mean is taken over.
    """

    kind: Literal["compare"]
    """What the job does."""

    base_model: str = Field(min_length=1, max_length=512)
    """A Hugging Face id, the path of a local folder, or an MLflow URI (models:/… or runs:/…)."""

    methods: tuple[Annotated[MethodSpec, BeforeValidator(_preset_of)], ...] = Field(
        min_length=2, max_length=32
    )
    """Presets by name, or objects."""

    reference: str = PresetName.LORA.value
    """Name of the method that every other one is compared with."""

    adapter: LowRankSpec = LowRankSpec()
    """What all presets have in common: rank, alpha, target modules."""

    data: DataSpec
    """Rows to train on, and rows to choose the learning rate by."""

    training: TrainingSpec = TrainingSpec()
    """Optimisation settings, the same for all; `learning_rate` and `seed` are not given here."""

    learning_rates: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (1e-4, 3e-4, 1e-3), min_length=1, max_length=16
    )
    """Learning rates that are tried of each method; the one with the lowest negative log-likelihood
    of the validation rows' answers is taken."""

    rates_chosen_with: Literal["first_seed", "all_seeds"] = "first_seed"
    """Trainings that choose the rate: those of the first seed, or those of all, which cost as many
    trainings as rates times seeds and choose by the mean."""

    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 1, 2), min_length=1, max_length=16)
    """Seeds of each method's trainings; from three on, a difference between methods can be told
    from the luck of a seed."""

    tasks: tuple[TaskSpec, ...] = Field(min_length=1, max_length=32)
    """What the methods are judged by."""

    max_new_tokens: int = Field(256, ge=1, le=32768)
    """Most tokens of an answer to a task's question."""

    batch_rows: int = Field(32, ge=1, le=4096)
    """Most rows that a worker answers at the same time; decides nothing about the answers."""

    resources: ResourcesSpec = ResourcesSpec()
    """What each training asks of the cluster; tasks are spread over as many such workers as it
    holds."""

    @model_validator(mode="after")
    def _names_are_clear(self) -> Self:
        require_distinct("methods", [method.name for method in self.methods])
        require_distinct("tasks", [task.name for task in self.tasks])
        require_distinct("seeds", self.seeds)
        require_distinct("learning_rates", self.learning_rates)
        names = [method.name for method in self.methods]
        if self.reference not in names:
            raise ValueError(
                f"reference: {self.reference!r} is none of the methods ({', '.join(names)}); add "
                "it, or name one of them"
            )
        return self

    @model_validator(mode="after")
    def _budgets_are_equal(self) -> Self:
        numbers = {
            method.name: len(self.rates_of(method)) for method in self.methods if not method.is_base
        }
        if not numbers:
            raise ValueError("methods: none is trained; add one, such as lora")
        if len(set(numbers.values())) > 1:
            listed = ", ".join(f"{name} {number}" for name, number in numbers.items())
            raise ValueError(
                f"methods: a fair comparison tries as many learning rates of each, not {listed}"
            )
        defaults = TrainingSpec()
        if self.training.learning_rate != defaults.learning_rate:
            raise ValueError("training.learning_rate: each method tries learning_rates; use those")
        if self.training.seed != defaults.seed:
            raise ValueError("training.seed: each method is trained with all seeds; use seeds")
        return self

    @model_validator(mode="after")
    def _the_validation_rows_choose(self) -> Self:
        most = max(len(self.rates_of(method)) for method in self.methods)
        if most > 1 and self.data.validation is None and not self.data.validation_rows:
            raise ValueError(
                "data.validation_rows: the learning rate is chosen by held-out rows; give them, "
                "or data.validation, or a single learning rate"
            )
        seen = {"data.train": self.data.train, "data.validation": self.data.validation}
        for task in self.tasks:
            for field, source in seen.items():
                if task.data == source:
                    raise ValueError(
                        f"tasks: the rows of {task.name!r} are those of {field}; a task needs "
                        "rows that nothing was trained on or chosen by"
                    )
        return self

    @model_validator(mode="after")
    def _every_method_can_be_trained(self) -> Self:
        for method in self.methods:
            if method.is_base:
                continue
            try:
                self.training_spec(method.name, self.rates_of(method)[0], self.seeds[0])
            except ValidationError as error:
                first = error.errors()[0]
                place = ".".join(map(str, first["loc"]))
                reason = first["msg"].removeprefix("Value error, ")
                raise ValueError(
                    f"method {method.name!r}: {place}{': ' * bool(place)}{reason}"
                ) from error
        return self

    def sources(self) -> dict[str, str | HubDatasetSpec]:
        """Every source of rows by the field that names it."""
        return self.data.sources() | task_sources(self.tasks)

    def method(self, name: str) -> MethodSpec:
        """The method of a name.

        Raises:
            KeyError: If there is none.
        """
        return {method.name: method for method in self.methods}[name]

    def rates_of(self, method: MethodSpec) -> tuple[float, ...]:
        """Learning rates that a method tries, rising; none of the base model."""
        if method.is_base:
            return ()
        return tuple(sorted(method.learning_rates or self.learning_rates))

    def training_spec(self, name: str, learning_rate: float, seed: int) -> FinetuneSpec:
        """The fine-tune that trains one method once; the tasks' rows are its evaluation sets.

        Raises:
            KeyError: If there is no method of this name.
            ValueError: If the method is the base model, which is not trained.
            ValidationError: If its settings contradict each other.
        """
        adapter = self.method(name).adapter_with(self.adapter)
        if adapter is None:
            raise ValueError("the base model is not trained")
        data = self.data.model_dump(mode="json")
        data["evaluation_sets"] |= {
            task.name: task.model_dump(mode="json")["data"] for task in self.tasks
        }
        training = {"learning_rate": learning_rate, "seed": seed}
        return FinetuneSpec.model_validate(
            {
                "kind": "finetune",
                "name": self.name,
                "base_model": self.base_model,
                "adapter": adapter.model_dump(mode="json"),
                "data": data,
                "training": self.training.model_dump(mode="json") | training,
                "resources": self.resources.model_dump(mode="json"),
            }
        )

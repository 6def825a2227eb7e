"""What a user asks for to search the fields of an adapter and its training. Torch-free."""

import re
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator

from jobs.finetune_specs import FinetuneSpec, TuningSpec
from jobs.method_specs import require_distinct
from jobs.objective_specs import ObjectiveMetric, ObjectiveSpec, TaskMeasure
from jobs.search_space import (
    ChoiceSpec,
    IntegersSpec,
    RangeSpec,
    Value,
    edges,
    grid_values,
    require_rising,
)
from jobs.task_specs import TaskSpec, task_sources
from workers.specs import HubDatasetSpec, Spec

_LARGEST_GRID = 1000


class AlgorithmSpec(Spec):
    """How the values of the next trial are chosen, and which trials end early."""

    name: Literal["tpe", "random", "grid"] = "tpe"
    """Optuna's tree-structured Parzen estimator; independent draws; or every combination."""

    early_stopping: Literal["asha", "median"] | None = None
    """Trials that end before their last step: those outside the best part at a rung (ASHA), or
    those worse than the median of the others at the same step. Both look at each evaluation."""

    grace_steps: int = Field(1, ge=1)
    """Steps that every trial may do before it can be stopped."""

    reduction_factor: int = Field(3, ge=2, le=16)
    """ASHA goes on with one trial of this many at each rung."""

    population_interval: int | None = Field(None, ge=1)
    """Population-based training instead: every so many steps, the worst quarter of the trials goes
    on from the weights of one of the best with its values changed."""

    seed: int = Field(0, ge=0)
    """Seed of the draws."""


class BudgetSpec(Spec):
    """What a search may use up; it ends where the first of these does."""

    trials: int = Field(20, ge=1, le=1000)
    """Trials. A grid has as many as it has combinations."""

    steps_per_trial: int | None = Field(None, ge=1)
    """Optimizer steps of a trial, if that is before its training would end by itself."""

    minutes: float | None = Field(None, gt=0)
    """Time since the search began."""

    gpu_hours: float | None = Field(None, gt=0)
    """GPU time that the trials have taken together."""


class SearchSpec(TuningSpec):
    """Search fields of the adapter and its training, and register what is best.

    `adapter` and `training` hold what all trials have in common; `resources` are those of a trial.
    """

    kind: Literal["search"]
    """What the job does."""

    space: dict[str, RangeSpec] = Field(min_length=1, max_length=32)
    """Fields to search, such as "adapter.curvature" or "training.learning_rate", and where their
    values come from."""

    objectives: tuple[ObjectiveSpec, ...] = Field((ObjectiveSpec(),), min_length=1, max_length=3)
    """What is aimed at; of several, the Pareto set is found and the first one picks the winner."""

    tasks: tuple[TaskSpec, ...] = Field((), max_length=32)
    """What trials are asked once they are trained, for objectives such as accuracy/TASK. Rows that
    a search chose by are no test of its winner."""

    algorithm: AlgorithmSpec = AlgorithmSpec()
    """How trials are chosen."""

    budget: BudgetSpec = BudgetSpec()
    """What the search may use up."""

    seeds_per_trial: int = Field(1, ge=1, le=16)
    """Trainings of each trial, by seeds that follow `training.seed`; the objective is their mean.
    Early stopping looks at the first alone, and only trials that reach their end get the others."""

    max_concurrent_trials: int | None = Field(None, ge=1, le=1000)
    """Trials at a time; by default as many as the cluster holds."""

    trials_per_gpu: int | None = Field(None, ge=1, le=16)
    """Trials that share one GPU; by default as many as its memory is estimated to hold."""

    register_best: int = Field(1, ge=1, le=20)
    """How many of the best adapters are registered, the best as the newest version."""

    refit: bool = False
    """Train the winner once more, without `budget.steps_per_trial`, and register that."""

    @model_validator(mode="after")
    def _every_field_can_be_searched(self) -> Self:
        for field, values in self.space.items():
            if not re.fullmatch(r"(adapter|training)\.\w+", field):
                raise ValueError(f"space.{field}: search fields of adapter or training")
            if field == "training.seed":
                raise ValueError("space.training.seed: use seeds_per_trial")
            if field == "adapter.method":
                raise ValueError("space.adapter.method: methods are compared, not searched")
            require_rising(field, values)
            for value in edges(values):
                self._require_valid(field, value)
        return self

    @model_validator(mode="after")
    def _the_algorithm_fits(self) -> Self:
        algorithm = self.algorithm
        if algorithm.name == "grid":
            for field, values in self.space.items():
                if not isinstance(values, ChoiceSpec | IntegersSpec):
                    raise ValueError(f"space.{field}: a grid needs a choice or integers")
            if self.num_trials > _LARGEST_GRID:
                raise ValueError(
                    f"space: the grid has {self.num_trials} combinations, more than {_LARGEST_GRID}"
                )
        stops = algorithm.early_stopping or algorithm.population_interval
        if algorithm.early_stopping and algorithm.population_interval:
            raise ValueError("algorithm: give either early_stopping or population_interval")
        if stops and self.resources.most_workers > 1:
            raise ValueError(
                "algorithm: trials of several workers cannot be stopped early; set "
                "resources.num_workers to 1"
            )
        if stops and len(self.objectives) > 1:
            raise ValueError("algorithm: trials can be stopped early by a single objective only")
        if stops and self.objectives[0].metric not in _MEASURED_ON_THE_WAY:
            raise ValueError(
                f"objectives: {self.objectives[0].metric} is not measured on the way; no trial "
                "can be stopped early by it"
            )
        if algorithm.population_interval:
            for field in self.space:
                if field not in CHANGEABLE_FIELDS:
                    raise ValueError(
                        f"space.{field}: cannot change while a trial trains; population-based "
                        f"training takes {', '.join(CHANGEABLE_FIELDS)}"
                    )
        return self

    @model_validator(mode="after")
    def _every_objective_will_appear(self) -> Self:
        metrics = [objective.metric for objective in self.objectives]
        if len(set(metrics)) < len(metrics):
            raise ValueError("objectives: a metric is given twice")
        if ObjectiveMetric.EVAL_LOSS not in metrics:
            return self
        if self.data.validation is None and not self.data.validation_rows:
            raise ValueError(
                "objectives: eval/loss needs held-out rows; give data.validation or "
                "data.validation_rows"
            )
        if self.algorithm.early_stopping and self.training.eval_every_steps is None:
            raise ValueError("training.eval_every_steps: needed to stop trials early by eval/loss")
        return self

    @model_validator(mode="after")
    def _tasks_and_objectives_belong_together(self) -> Self:
        require_distinct("tasks", [task.name for task in self.tasks])
        given = {task.name for task in self.tasks}
        named = {of_task[1] for each in self.objectives if (of_task := each.of_task)}
        if unknown := sorted(named - given):
            names = ", ".join(sorted(given)) or "none"
            raise ValueError(f"objectives: there is no task {unknown[0]!r} among tasks ({names})")
        if idle := sorted(given - named):
            raise ValueError(
                f"tasks: no objective is of {idle[0]!r}; add one, such as accuracy/{idle[0]}, or "
                "leave the task out"
            )
        if self.tasks and self.resources.most_workers > 1:
            raise ValueError(
                "resources.num_workers: tasks are asked by the one process that trained; set it "
                "to 1, or search by eval/loss"
            )
        for task in self.tasks:
            if task.data == self.data.train:
                raise ValueError(
                    f"tasks: the rows of {task.name!r} are those of data.train; a trial is to be "
                    "judged by rows that it has not seen"
                )
        return self

    def sources(self) -> dict[str, str | HubDatasetSpec]:
        """Every source of rows by the field that names it."""
        return super().sources() | task_sources(self.tasks)

    def tasks_judged_by(self, measure: TaskMeasure) -> tuple[str, ...]:
        """Names of the tasks that an objective measures so."""
        aims = [each.of_task for each in self.objectives]
        return tuple(aim[1] for aim in aims if aim is not None and aim[0] is measure)

    @property
    def num_trials(self) -> int:
        """Trials that the budget allows."""
        if self.algorithm.name != "grid":
            return self.budget.trials
        total = 1
        for values in self.space.values():
            total *= len(grid_values(values))
        return total

    def trial_spec(
        self, values: Mapping[str, Value], *, seed_offset: int = 0, is_refit: bool = False
    ) -> FinetuneSpec:
        """The fine-tune that a trial is.

        Args:
            values: Of each searched field.
            seed_offset: Counts the seeds of a trial.
            is_refit: Whether the trial's bound on steps does not hold.

        Raises:
            ValidationError: If the values contradict each other.
        """
        common = set(TuningSpec.model_fields)
        spec = self.model_dump(mode="json", include=common) | {"kind": "finetune"}
        for field, value in values.items():
            part, _, name = field.partition(".")
            spec[part][name] = value
        # The training rows are searched for those of the tasks.
        spec["data"]["evaluation_sets"] |= {
            task.name: task.model_dump(mode="json")["data"] for task in self.tasks
        }
        training = spec["training"]
        training["seed"] += seed_offset
        if self.budget.steps_per_trial is not None and not is_refit:
            bounds = (training["max_steps"], self.budget.steps_per_trial)
            training["max_steps"] = min(bound for bound in bounds if bound is not None)
        if (interval := self.algorithm.population_interval) and not is_refit:
            training |= {"checkpoint_every_steps": interval, "eval_every_steps": interval}
        return FinetuneSpec.model_validate(spec)

    def _require_valid(self, field: str, value: Value) -> None:
        try:
            self.trial_spec({field: value})
        except ValidationError as error:
            first = error.errors()[0]
            reason = first["msg"].removeprefix("Value error, ")
            raise ValueError(f"space.{field}: {value!r} cannot be: {reason}") from error


_MEASURED_ON_THE_WAY = {ObjectiveMetric.EVAL_LOSS, ObjectiveMetric.TRAIN_LOSS}

CHANGEABLE_FIELDS = (
    "training.learning_rate",
    "training.weight_decay",
    "training.max_grad_norm",
    "adapter.alpha",
    "adapter.dropout",
    "adapter.curvature",
)
"""Fields that population-based training may change from one checkpoint to the next."""

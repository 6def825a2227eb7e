"""What a search aims at. Torch-free."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from workers.specs import RunMetric, Spec


class ObjectiveMetric(StrEnum):
    """What a search can aim at."""

    EVAL_LOSS = RunMetric.EVAL_LOSS
    """Loss on the held-out rows, in nats an answer token."""

    TRAIN_LOSS = RunMetric.LOSS
    """Loss of the last training step."""

    NUM_PARAMETERS = "num_trainable_parameters"
    """Size of the adapter."""

    SECONDS_A_STEP = "seconds_a_step"
    """Time of an optimizer step, from a trial's start, evaluations included."""


class TaskMeasure(StrEnum):
    """What a trained trial is judged by on a task; a metric is MEASURE/TASK."""

    ACCURACY = "accuracy"
    """Share of right answers; of a scorer that gives parts of a point, their mean."""

    NLL = "nll"
    """Negative log-likelihood of the gold answers: of each row the mean over its tokens (nats),
    then over rows."""


def _kind_of_metric(value: object) -> str:
    is_of_task = isinstance(value, str) and value.partition("/")[0] in set(TaskMeasure)
    return "task" if is_of_task else "training"


MetricName = Annotated[
    Annotated[ObjectiveMetric, Tag("training")]
    | Annotated[str, Field(pattern=r"^\w+/[\w.-]{1,64}$"), Tag("task")],
    Discriminator(_kind_of_metric),
]
"""What is compared: a metric of the training, or `accuracy/TASK` or `nll/TASK` of a task."""


class ObjectiveSpec(Spec):
    """One thing that a search aims at."""

    metric: MetricName = ObjectiveMetric.EVAL_LOSS
    """What is compared: a metric of the training, or accuracy/TASK or nll/TASK."""

    mode: Literal["min", "max"] = "min"
    """Whether less or more is better."""

    @model_validator(mode="after")
    def _accuracy_is_to_rise(self) -> Self:
        if self.of_task and self.of_task[0] is TaskMeasure.ACCURACY and self.mode == "min":
            raise ValueError(f"mode: {self.metric} is better the larger it is; give max")
        return self

    @property
    def of_task(self) -> tuple[TaskMeasure, str] | None:
        """What is measured on which task; None of what the training tells."""
        if isinstance(self.metric, ObjectiveMetric):
            return None
        measure, _, task = self.metric.partition("/")
        return TaskMeasure(measure), task

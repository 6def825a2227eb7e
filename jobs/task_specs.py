"""What a user says about the rows that models are judged by. Torch-free."""

from collections.abc import Sequence
from typing import Self

from pydantic import Field, model_validator

from workers.specs import DataSource, HubDatasetSpec, Spec
from workers.tasks.specs import ScorerSpec, TaskName


class TaskSpec(Spec):
    """Rows that models are judged by: a benchmark, or rows with a scorer of one's own."""

    name: str = Field("", pattern=r"^(?:\w[\w.-]{0,63})?$")
    """What the report calls it; by default the benchmark's name."""

    benchmark: TaskName | None = None
    """How rows are asked and scored, by name."""

    scorer: ScorerSpec | None = None
    """Or how the answers to one's own rows are scored."""

    data: DataSource
    """The rows, as JSON lines, plain or gzip."""

    max_rows: int | None = Field(None, ge=1)
    """Most rows that are asked, the first ones; by default all."""

    num_shots: int = Field(0, ge=0, le=64)
    """Examples that stand before each question, the same before all."""

    shots: DataSource | None = None
    """Rows that the examples are drawn from; a question is never its own example."""

    shots_seed: int = Field(0, ge=0)
    """Seed of that draw."""

    @model_validator(mode="before")
    @classmethod
    def _a_benchmark_names_its_task(cls, given: object) -> object:
        if isinstance(given, dict) and not given.get("name") and given.get("benchmark"):
            return given | {"name": str(given["benchmark"])}
        return given

    @model_validator(mode="after")
    def _is_one_task(self) -> Self:
        if (self.benchmark is None) == (self.scorer is None):
            raise ValueError(f"task {self.name!r}: give either benchmark or scorer")
        if not self.name:
            raise ValueError("name: a task with a scorer of its own needs a name")
        if bool(self.num_shots) != (self.shots is not None):
            raise ValueError(
                f"task {self.name!r}: num_shots and shots go together: how many examples, and the "
                "rows to draw them from"
            )
        return self


def task_sources(tasks: Sequence[TaskSpec]) -> dict[str, str | HubDatasetSpec]:
    """Every source of tasks by the field that names it, such as "tasks.0.data"."""
    named = {}
    for number, task in enumerate(tasks):
        named[f"tasks.{number}.data"] = task.data
        if task.shots is not None:
            named[f"tasks.{number}.shots"] = task.shots
    return named

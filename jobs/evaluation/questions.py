"""The rows of a job's tasks as questions with their examples."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from jobs.task_specs import TaskSpec
from jobs.tickets import FileRef
from workers.errors import DataInvalidError
from workers.evaluate import TaskQuestions
from workers.sources import read_questions
from workers.tasks.few_shot import draw_shots
from workers.tasks.registry import task_named, task_of_own_rows
from workers.tasks.task import Task


def read_tasks(specs: Sequence[TaskSpec], files: Mapping[str, FileRef]) -> list[TaskQuestions]:
    """Read the questions of tasks, and draw the examples that stand before them.

    Args:
        specs: The tasks, in their order in the job's spec.
        files: The job's uploaded files by id.

    Raises:
        DataInvalidError: If a source or a row cannot be read, or examples are too few; the message
            names task, line and field.
    """
    paths = {file_id: Path(ref.uri) for file_id, ref in files.items()}
    return [_read_task(spec, f"tasks.{number}", paths) for number, spec in enumerate(specs)]


def task_of(spec: TaskSpec) -> Task:
    """How the rows of a task are asked and scored, under the name that the user gave it."""
    if spec.scorer is not None:
        return task_of_own_rows(spec.name, spec.scorer)
    assert spec.benchmark is not None
    return replace(task_named(spec.benchmark), name=spec.name)


def _read_task(spec: TaskSpec, field: str, files: Mapping[str, Path]) -> TaskQuestions:
    task, name = task_of(spec), f"task {spec.name} ({field}.%s)"
    questions = read_questions(
        task, spec.data, name=name % "data", files=files, max_rows=spec.max_rows
    )
    if spec.shots is None:
        return TaskQuestions(task, questions)
    pool = read_questions(task, spec.shots, name=name % "shots", files=files)
    try:
        shots = draw_shots(pool, spec.num_shots, spec.shots_seed, never=questions)
    except ValueError as error:
        raise DataInvalidError(f"{name % 'shots'}: {error}") from error
    return TaskQuestions(task, questions, shots)

"""What a trial's answers are worth: the tasks of a search, asked of each model it has trained."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import TYPE_CHECKING

from jobs.evaluation.questions import read_tasks
from jobs.objective_specs import TaskMeasure
from jobs.search_specs import SearchSpec
from jobs.tickets import FileRef
from workers.base_model import load_tokenizer
from workers.chat_templates import set_chat_template
from workers.evaluate import EvaluationMethod, evaluate
from workers.predictions import Mode, read_predictions

if TYPE_CHECKING:
    from peft import PeftModel

_MODES: Mapping[TaskMeasure, Mode] = MappingProxyType(
    {TaskMeasure.ACCURACY: "generation", TaskMeasure.NLL: "gold"}
)


class TrialQuestions:
    """The questions of a search's tasks, read once for all trials of a process.

    Args:
        spec: The search.
        files: Its uploaded files by id.

    Raises:
        WorkerError: If a row or the base model's tokenizer cannot be used.
    """

    def __init__(self, spec: SearchSpec, files: Mapping[str, FileRef]) -> None:
        self._spec = spec
        self._tokenizer = load_tokenizer(spec.base_model)
        set_chat_template(self._tokenizer, spec.data.chat_template)
        self._tasks = {each.task.name: each for each in read_tasks(spec.tasks, files)}

    def ask(
        self, model: "PeftModel", stop_requested: Callable[[], bool]
    ) -> dict[str, float] | None:
        """Measure what the objectives name.

        Args:
            model: With the trial's adapter alone, in evaluation mode.
            stop_requested: Asked after each row.

        Returns:
            Values by metric, such as accuracy/gsm8k; None if it was asked to stop, and did.

        Raises:
            WorkerError: If a prompt does not fit, or the model's numbers are not finite.
        """
        found: dict[str, float] = {}
        for measure in TaskMeasure:
            for name in self._spec.tasks_judged_by(measure):
                value = self._measure(model, name, measure, stop_requested)
                if value is None:
                    return None
                found[f"{measure}/{name}"] = value
        return found

    def _measure(
        self,
        model: "PeftModel",
        name: str,
        measure: TaskMeasure,
        stop_requested: Callable[[], bool],
    ) -> float | None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "predictions.jsonl"
            result = evaluate(
                model,
                self._tokenizer,
                [self._tasks[name]],
                path,
                adapters=[model.active_adapter],
                method=EvaluationMethod(_MODES[measure]),
                stop_requested=stop_requested,
            )
            if not result.is_complete:
                return None
            if measure is TaskMeasure.ACCURACY:
                return result.scores[0].value
            rows = read_predictions(path)
        return fmean(-sum(row.log_likelihoods) / row.num_new_tokens for row in rows)

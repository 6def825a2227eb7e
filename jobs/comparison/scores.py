"""What the models of a comparison answered, as its analysis takes it. Torch-free."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from jobs.compare_report.method_results import MethodResult, SeedRun, TaskScores
from jobs.compare_specs import CompareSpec
from jobs.comparison.schedule import Conclusion, Records, validation_nlls
from jobs.evaluation.scores import task_scores as answer_scores
from jobs.method_specs import adapter_in_words
from jobs.model_specs import BASE
from workers.predictions import Prediction, questions_digest

Scores = Mapping[str, Mapping[str, TaskScores]]
"""By the name of the model, then of the task."""


def task_scores(answers: Iterable[Prediction], golds: Iterable[Prediction]) -> Scores:
    """How each model did on each task, row by row.

    Args:
        answers: Predictions of the mode "generation".
        golds: Of the mode "gold", for the same rows of the same models.

    Raises:
        ValueError: If the two are not of the same rows.
    """
    scores = answer_scores(sorted(answers, key=_row))
    likelihoods = _by_model_and_task(golds)
    return {
        model: {
            task: _with_nlls(each, likelihoods.get((model, task), []), f"{model}, {task}")
            for task, each in tasks.items()
        }
        for model, tasks in scores.items()
    }


def method_results(
    spec: CompareSpec, records: Records, concluded: Conclusion, scores: Scores
) -> list[MethodResult]:
    """The methods that have a result, the base model among them, in the order of the spec.

    Args:
        spec: What was asked for.
        records: Of all trainings.
        concluded: What they decided.
        scores: Of every training at a chosen rate, under its name; of the base model, if it is one
            of the methods, under "base".
    """
    results = []
    for method in spec.methods:
        words = adapter_in_words(method.adapter_with(spec.adapter))
        if method.is_base:
            results.append(MethodResult(method.name, words, (SeedRun(None, scores[BASE]),)))
        elif trainings := concluded.trained.get(method.name):
            own = [records[training.name] for training in trainings]
            runs = tuple(
                SeedRun(
                    training.seed, scores[training.name], record.seconds, record.peak_memory_bytes
                )
                for training, record in zip(trainings, own, strict=True)
            )
            results.append(
                MethodResult(
                    method=method.name,
                    adapter=words,
                    runs=runs,
                    learning_rate=trainings[0].learning_rate,
                    validation_nlls=validation_nlls(spec, method.name, records),
                    num_trainable_parameters=own[0].num_trainable_parameters,
                )
            )
    return results


def _with_nlls(scores: TaskScores, golds: Sequence[Prediction], where: str) -> TaskScores:
    if scores.question_digest != questions_digest([each.row_digest for each in golds]):
        raise ValueError(f"{where}: answers and likelihoods are of different questions")
    nlls = tuple(-sum(each.log_likelihoods) / each.num_new_tokens for each in golds)
    return replace(scores, nlls=nlls)


def _by_model_and_task(
    predictions: Iterable[Prediction],
) -> dict[tuple[str, str], list[Prediction]]:
    """Rows in their order."""
    found: dict[tuple[str, str], list[Prediction]] = defaultdict(list)
    for each in sorted(predictions, key=_row):
        found[each.model, each.task].append(each)
    return found


def _row(prediction: Prediction) -> int:
    return prediction.row

"""What the models of a comparison answered, as its analysis takes it. Torch-free."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from jobs.compare_report.method_results import MethodResult, SeedRun, TaskScores
from jobs.compare_specs import CompareSpec
from jobs.comparison.schedule import Conclusion, Records, validation_nlls
from jobs.method_specs import adapter_in_words
from jobs.model_specs import BASE
from workers.predictions import Prediction, digest_of

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
    likelihoods = _by_model_and_task(golds)
    scores: dict[str, dict[str, TaskScores]] = {}
    for (model, task), rows in _by_model_and_task(answers).items():
        gold = likelihoods.get((model, task), [])
        asked = [(each.row, each.row_digest) for each in rows]
        if asked != [(each.row, each.row_digest) for each in gold]:
            raise ValueError(f"{model}, {task}: answers and likelihoods are of different questions")
        scores.setdefault(model, {})[task] = TaskScores(
            question_digest=digest_of(*(digest for _, digest in asked)),
            scores=tuple(_score(each) for each in rows),
            nlls=tuple(-sum(each.log_likelihoods) / each.num_new_tokens for each in gold),
            metric="f1" if "f1" in rows[0].scores else "accuracy",
        )
    return scores


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


def _by_model_and_task(
    predictions: Iterable[Prediction],
) -> dict[tuple[str, str], Sequence[Prediction]]:
    """Rows in their order, in the order of models and tasks."""
    ordered = sorted(predictions, key=lambda each: (each.model, each.task, each.row))
    grouped = groupby(ordered, key=lambda each: (each.model, each.task))
    return {key: list(rows) for key, rows in grouped}


def _score(prediction: Prediction) -> float:
    """By the one metric that answers have."""
    (score,) = prediction.scores.values()
    return score

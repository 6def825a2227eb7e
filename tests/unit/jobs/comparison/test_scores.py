"""From predictions to what a comparison's analysis takes."""

import math
from collections.abc import Sequence
from typing import Any

import pytest

from jobs.compare_report.report import build_report
from jobs.compare_specs import CompareSpec
from jobs.comparison.schedule import conclude
from jobs.comparison.scores import method_results, task_scores
from jobs.comparison.training import Training, TrainingRecord
from workers.predictions import Prediction, digest_of


def prediction(model: str, row: int, **fields: Any) -> Prediction:
    given = {
        "task": "sums",
        "model": model,
        "row": row,
        "row_digest": f"row-{row}",
        "prompt_digest": "prompt",
        "mode": "generation",
        "scores": {"accuracy": float(row % 2)},
        "num_prompt_tokens": 5,
        "num_new_tokens": 4,
    }
    return Prediction.model_validate(given | fields)


def gold(model: str, row: int, **fields: Any) -> Prediction:
    measured = {"mode": "gold", "scores": {}, "log_likelihoods": (-2.0 * (row + 1),)}
    return prediction(model, row, **(measured | fields))


def both(models: Sequence[str], num_rows: int = 3) -> tuple[list[Prediction], list[Prediction]]:
    pairs = [(model, row) for row in reversed(range(num_rows)) for model in models]
    return [prediction(*pair) for pair in pairs], [gold(*pair) for pair in pairs]


def test_scores_are_in_the_order_of_the_rows_with_nats_a_token() -> None:
    scores = task_scores(*both(["base", "lora"]))
    assert scores.keys() == {"base", "lora"}
    found = scores["lora"]["sums"]
    assert found.scores == (0.0, 1.0, 0.0)
    assert found.nlls == (0.5, 1.0, 1.5)
    assert found.metric == "accuracy"
    assert found.question_digest == digest_of("row-0", "row-1", "row-2")


def test_f1_is_called_what_it_is() -> None:
    answers = [prediction("base", row, scores={"f1": 0.25}) for row in range(2)]
    scores = task_scores(answers, [gold("base", row) for row in range(2)])
    assert (scores["base"]["sums"].metric, scores["base"]["sums"].scores) == ("f1", (0.25, 0.25))


@pytest.mark.parametrize("changed", [{"row_digest": "another"}, {"row": 0}])
def test_likelihoods_of_other_questions_are_refused(changed: dict[str, Any]) -> None:
    answers, golds = both(["base"])
    golds[0] = golds[0].model_copy(update=changed)
    with pytest.raises(ValueError, match="base, sums: answers and likelihoods"):
        task_scores(answers, golds)


def test_results_hold_what_the_records_and_the_answers_say() -> None:
    spec = CompareSpec.model_validate(
        {
            "kind": "compare",
            "name": "fair",
            "base_model": "some/model",
            "data": {"train": "file-0000000000000000", "validation_rows": 8},
            "methods": ["base", "lora", "hyplora"],
            "learning_rates": [1e-3, 1e-2],
            "seeds": [0, 1],
            "tasks": [
                {"name": "sums", "scorer": {"kind": "exact"}, "data": "file-1111111111111111"}
            ],
        }
    )
    good = [Training("lora", 1e-3, seed) for seed in (0, 1)]
    records = {
        each.name: TrainingRecord(
            checkpoint="c",
            eval_loss=1.0,
            num_trainable_parameters=64,
            seconds=10.0,
            peak_memory_bytes=1 << 30,
        )
        for each in good
    }
    records[Training("lora", 1e-2, 0).name] = TrainingRecord(checkpoint="c", eval_loss=None)
    for rate in (1e-3, 1e-2):
        failed = TrainingRecord(failure="out-of-memory: a worker")
        records[Training("hyplora", rate, 0).name] = failed
    concluded = conclude(spec, records)

    scores = task_scores(*both(["base", *(each.name for each in good)]))
    base, lora = method_results(spec, records, concluded, scores)

    assert (base.method, base.adapter, base.runs[0].seed) == ("base", "none", None)
    assert [run.seed for run in lora.runs] == [0, 1]
    assert (lora.learning_rate, lora.num_trainable_parameters) == (1e-3, 64)
    assert lora.runs[0].train_seconds == 10.0
    assert lora.runs[0].peak_memory_bytes == 1 << 30
    assert lora.validation_nlls is not None
    assert lora.validation_nlls[1e-3] == (1.0,)
    assert math.isnan(lora.validation_nlls[1e-2][0])
    report = build_report(spec, [base, lora], concluded.missing)
    assert report.missing.keys() == {"hyplora"}

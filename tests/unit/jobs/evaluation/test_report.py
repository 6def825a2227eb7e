"""Reports of evaluations, against values computed by hand."""

from typing import Any

import pytest

from jobs.evaluate_specs import EvaluateSpec
from jobs.evaluation.markdown import to_markdown
from jobs.evaluation.pins import Pins
from jobs.evaluation.publishing import metrics_of
from jobs.evaluation.report import EvaluateReport, build_report
from workers.predictions import Prediction
from workers.tasks.task import Metric

SPEC: dict[str, Any] = {
    "kind": "evaluate",
    "name": "two",
    "base_model": "/models/base",
    "models": ["base", "models:/sums@champion"],
    "tasks": [
        {"benchmark": "gsm8k", "data": "file:///rows.jsonl", "max_rows": 10},
        {"name": "own", "scorer": {"kind": "exact"}, "data": "file:///own.jsonl"},
    ],
}
PINS = Pins(base_model="/models/base", models={"base": None, "sums@champion": "models:/sums/3"})


def predictions(
    task: str, model: str, right: int, of: int, metric: Metric = "accuracy", **fields: Any
) -> list[Prediction]:
    given: dict[str, Any] = {"answer": "4", "extracted": "4", "stop_reason": "end"}
    return [
        Prediction(
            task=task,
            model=model,
            row=row,
            row_digest=f"{task}-{row}",
            prompt_digest="p",
            mode="generation",
            scores={metric: float(row < right)},
            num_prompt_tokens=9,
            num_new_tokens=1,
            **given | fields,
        )
        for row in range(of)
    ]


@pytest.fixture
def report() -> EvaluateReport:
    spec = EvaluateSpec.model_validate(SPEC)
    found = [
        *predictions("gsm8k", "base", 1, 10),
        *predictions("gsm8k", "sums@champion", 3, 10, extracted=None, stop_reason="length"),
        *predictions("own", "base", 2, 4),
        *predictions("own", "sums@champion", 4, 4),
    ]
    return build_report(spec, PINS, found, None, 123.4)


def test_the_table_has_shares_with_wilson_intervals_and_the_plain_mean_over_tasks(
    report: EvaluateReport,
) -> None:
    page = to_markdown(report)
    # Wilson 1927 at 95 %: 1 of 10, 3 of 10, 2 of 4 and 4 of 4.
    assert "| gsm8k | accuracy | 10.0 [1.8, 40.4] | 30.0 [10.8, 60.3] |" in page
    assert "| own | accuracy | 50.0 [15.0, 85.0] | 100.0 [51.0, 100.0] |" in page
    assert "| **average** | accuracy | **30.0** | **65.0** |" in page


def test_the_page_tells_how_many_answers_were_unreadable_or_cut(report: EvaluateReport) -> None:
    assert "| gsm8k | 0.0 / 0.0 | 100.0 / 100.0 |" in to_markdown(report)


def test_the_page_tells_what_was_asked_of_whom(report: EvaluateReport) -> None:
    page = to_markdown(report)
    assert "| sums@champion | models:/sums/3 |" in page
    assert f"| gsm8k | 10 | 0 | {report.tasks[0].question_digest} |" in page
    assert "123 tokens/s" in page


def test_the_summary_ranks_models_by_their_mean_over_tasks(report: EvaluateReport) -> None:
    assert report.summary == (
        "accuracy on average over 2 tasks (14 rows): sums@champion 65.0 %, base 30.0 %."
    )


def test_metrics_have_names_that_mlflow_takes(report: EvaluateReport) -> None:
    assert metrics_of(report) == {
        "evaluation/gsm8k/base/accuracy": 0.1,
        "evaluation/gsm8k/sums_champion/accuracy": 0.3,
        "evaluation/own/base/accuracy": 0.5,
        "evaluation/own/sums_champion/accuracy": 1.0,
        "evaluation/macro_average/base/accuracy": pytest.approx(0.3),
        "evaluation/macro_average/sums_champion/accuracy": pytest.approx(0.65),
    }


def test_a_summary_of_many_models_keeps_to_a_line() -> None:
    names = [f"{'m' * 70}-{number}" for number in range(20)]
    spec = EvaluateSpec.model_validate(
        SPEC
        | {
            "tasks": SPEC["tasks"][:1],
            "models": [{"name": name, "adapter": f"/adapters/{name}"} for name in names],
        }
    )
    pins = Pins(base_model="b", models={name: f"/adapters/{name}" for name in names})
    found = [each for name in names for each in predictions("gsm8k", name, 1, 2)]
    summary = build_report(spec, pins, found, None, None).summary
    assert summary.startswith("accuracy on gsm8k (2 rows): ")
    assert summary.endswith(" and 17 more.")
    assert len(summary) <= 400


def test_options_are_reported_by_each_metric_of_their_own() -> None:
    spec = EvaluateSpec.model_validate(
        SPEC | {"tasks": [{"benchmark": "aqua", "data": "file:///a"}], "mode": "likelihood"}
    )
    found = [
        each.model_copy(
            update={
                "mode": "likelihood",
                "scores": {"acc": float(each.row < 1), "acc_norm": 1.0},
                "stop_reason": None,
            }
        )
        for model in PINS.models
        for each in predictions("aqua", model, 0, 4)
    ]
    report = build_report(spec, PINS, found, None, None)
    page = to_markdown(report)
    assert "| aqua | acc | 25.0 [4.6, 69.9] | 25.0 [4.6, 69.9] |" in page
    assert "| aqua | acc_norm | 100.0 [51.0, 100.0] |" in page
    assert "## Answers" not in page
    assert report.summary.startswith("acc on aqua (4 rows): ")

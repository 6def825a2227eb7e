"""An evaluation's report as a page in Markdown."""

from collections.abc import Sequence

from jobs.evaluation.report import EvaluateReport
from jobs.markdown_table import markdown_table
from workers.evaluation_result import TaskScore
from workers.tasks.task import Metric

_METRICS: tuple[Metric, ...] = ("accuracy", "f1", "acc", "acc_norm")


def to_markdown(report: EvaluateReport) -> str:
    """The outcome and the table first, then what they rest on."""
    parts = [
        f"# Evaluation: {report.spec.name}",
        report.summary,
        "## Scores\n\n"
        "In %, with 95 % intervals: Wilson's of a share of right answers, a normal one of a mean. "
        "In an average every task counts alike.\n\n" + _scores(report),
    ]
    if any(score.share_cut is not None for score in report.result.scores):
        parts.append(
            "## Answers\n\nShare in which nothing was found to score / that were cut off at "
            f"{report.spec.max_new_tokens} tokens, in %.\n\n" + _answers(report)
        )
    if report.promotion is not None:
        parts.append(f"## Promotion\n\n{report.promotion.sentence}")
    parts.append(
        f"## How it was asked\n\n{_asked(report)}\n\n{_models(report)}\n\n{_tasks(report)}"
    )
    return "\n\n".join(parts) + "\n"


def _scores(report: EvaluateReport) -> str:
    found = {(each.task, each.model, each.metric): each for each in report.result.scores}
    means = {(each.model, each.metric): each for each in report.result.macro_averages}
    models = list(report.pins.models)
    rows = []
    for metric in _METRICS:
        tasks = [task.name for task in report.tasks if (task.name, models[0], metric) in found]
        rows += [
            [task, metric, *(_score(found[task, model, metric]) for model in models)]
            for task in tasks
        ]
        if len(tasks) > 1:
            average = [f"{100 * means[model, metric].value:.1f}" for model in models]
            rows.append(["**average**", metric, *(f"**{value}**" for value in average)])
    return markdown_table(["task", "metric", *models], rows)


def _score(score: TaskScore) -> str:
    low, high = score.interval
    return f"{100 * score.value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _answers(report: EvaluateReport) -> str:
    found = {(each.task, each.model): each for each in report.result.scores}
    models = list(report.pins.models)
    rows = [
        [task.name, *(_shares(found[task.name, model]) for model in models)]
        for task in report.tasks
    ]
    return markdown_table(["task", *models], rows)


def _shares(score: TaskScore) -> str:
    shares = (score.share_unreadable, score.share_cut)
    return " / ".join("–" if share is None else f"{100 * share:.1f}" for share in shares)


def _asked(report: EvaluateReport) -> str:
    spec = report.spec
    how = (
        f"for answers of up to {spec.max_new_tokens} tokens, decoded greedily"
        if spec.mode == "generation"
        else "by the log-likelihoods of the options"
    )
    speed = report.result.tokens_per_s
    told = f" {speed:,.0f} tokens/s over all workers." if speed is not None else ""
    return (
        f"Base model {report.pins.base_model} in {spec.dtype} precision; models were asked {how}; "
        f"chat template: {spec.chat_template or 'the one that the adapters were trained with'}."
        f"{told}"
    )


def _models(report: EvaluateReport) -> str:
    rows = [[name, reference or "–"] for name, reference in report.pins.models.items()]
    return markdown_table(["model", "adapter"], rows)


def _tasks(report: EvaluateReport) -> str:
    rows: Sequence[Sequence[str]] = [
        [asked.name, str(asked.num_rows), str(spec.num_shots), asked.question_digest]
        for asked, spec in zip(report.tasks, report.spec.tasks, strict=True)
    ]
    return markdown_table(["task", "questions", "examples", "digest"], rows)

"""A search's report as a page in Markdown."""

from collections.abc import Sequence

from jobs.markdown_table import markdown_table
from jobs.search_report.report import SearchReport, TrialResult
from jobs.search_report.value_labels import number_label, value_label


def to_markdown(report: SearchReport) -> str:
    """Findings first, then the tables that they rest on."""
    counts = ", ".join(f"{number} {state}" for state, number in report.num_trials.items())
    aims = ", ".join(f"{each.metric} ({each.mode})" for each in report.objectives)
    parts = [
        "# Search report",
        f"Objectives: {aims}. Trials: {counts or 'none'}. Time: {report.seconds / 60:.1f} minutes; "
        f"of all trials together: {report.trial_seconds / 60:.1f}.",
        "## Findings\n\n" + "\n".join(f"- {finding}" for finding in report.findings),
    ]
    if report.best:
        parts.append("## Best trials\n\n" + _trials(report, report.best))
    if report.pareto:
        parts.append("## Pareto set\n\n" + _trials(report, report.pareto))
    for importance in report.importance:
        if importance.fields:
            rows = [
                [
                    share.field,
                    *map(_percent, (share.estimate, share.low, share.high)),
                ]
                for share in importance.fields
            ]
            table = markdown_table(["field", "share of the variance", "from", "to"], rows)
            parts.append(f"## What matters for {importance.metric}\n\n{table}")
    for comparison in report.comparisons:
        rows = [
            [
                value_label(group.value),
                str(group.num_completed),
                str(group.num_stopped),
                str(group.num_failed),
                str(group.steps),
                _number(group.mean),
                _number(group.best),
                _number(group.best_at_equal_budget),
            ]
            for group in comparison.groups
        ]
        heads = ["value", "completed", "stopped", "failed", "steps", "mean", "best"]
        heads.append(f"best of {comparison.num_at_equal_budget}")
        title = f"## {comparison.metric} by {comparison.field}"
        parts.append(f"{title}\n\n{markdown_table(heads, rows)}")
    return "\n\n".join(parts) + "\n"


def _trials(report: SearchReport, trials: Sequence[TrialResult]) -> str:
    fields = list(trials[0].values)
    metrics = [objective.metric for objective in report.objectives]
    rows = [
        [
            trial.trial_id,
            *(_measured(trial, metric) for metric in metrics),
            *(value_label(trial.values[field]) for field in fields),
            str(trial.steps),
        ]
        for trial in trials
    ]
    return markdown_table(["trial", *metrics, *fields, "steps"], rows)


def _measured(trial: TrialResult, metric: str) -> str:
    error = f" ± {trial.errors[metric]:.2g}" if metric in trial.errors else ""
    return _number(trial.objectives[metric]) + error


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _number(number: float | None) -> str:
    return "–" if number is None else number_label(number, 4)

"""The score of every method on each task, with what other seeds and questions might change."""

import altair as alt

from jobs.compare_report.method_summary import MethodSummary
from jobs.compare_report.report import CompareReport
from jobs.compare_report.seeds_mean import SeedsMean
from jobs.plot import GOOD, QUIET, Plot, Rows, data, titled

AVERAGE = "average"
_COLUMNS, _WIDTH, _BAND = 3, 210, 26
_MARGIN = 0.12
_REFERENCE = "#555555"


def score_panels(report: CompareReport) -> Plot:
    """A panel for each task and, of several, one for their average; a line for each method."""
    names = [task.name for task in report.tasks]
    panels = [_panel(report, name) for name in names]
    if len(names) > 1:
        panels.append(_panel(report, None))
    title = "Scores by method"
    return Plot(
        "scores",
        title,
        alt.concat(*panels, columns=min(_COLUMNS, len(panels))).properties(
            title=titled(
                title,
                "large dot: mean over seeds; small dots: seeds; thick line: 95 % interval over "
                "seeds, cut at the panel's edge;",
                "thin line: 95 % interval over questions; dashed: mean of the reference, "
                f"{report.spec.reference}",
            )
        ),
    )


def _panel(report: CompareReport, task: str | None) -> alt.LayerChart:
    means = {method.method: _mean(method, task) for method in report.methods}
    rows: Rows = []
    dots: Rows = []
    for name, mean in means.items():
        half = mean.half_width or 0.0
        low, high = mean.over_questions or (mean.value, mean.value)
        rows.append(
            {
                "method": name,
                "value": mean.value,
                "low": max(0.0, mean.value - half),
                "high": min(1.0, mean.value + half),
                "question_low": low,
                "question_high": high,
                "text": f"{100 * mean.value:.1f}",
            }
        )
        dots += [{"method": name, "seed_value": value} for value in mean.per_seed]
    scale = alt.Scale(domain=_domain(list(means.values())), zero=False, nice=False)
    y = alt.Y(
        "method:N", sort=None, title=None, axis=alt.Axis(ticks=False, domain=False, labelLimit=160)
    )
    axis = alt.Axis(format=".0%", tickCount=4)

    def x(field: str) -> alt.X:
        return alt.X(f"{field}:Q", title=None, scale=scale, axis=axis)

    base = alt.Chart(data(rows)).encode(y=y)
    tooltip = [
        "method:N",
        alt.Tooltip("value:Q", format=".2%"),
        alt.Tooltip("low:Q", format=".2%"),
        alt.Tooltip("high:Q", format=".2%"),
    ]
    layers = [
        base.mark_rule(color=QUIET, strokeWidth=1.2, clip=True).encode(
            x=x("question_low"), x2="question_high:Q"
        ),
        base.mark_rule(color=GOOD, strokeWidth=4, opacity=0.45, clip=True).encode(
            x=x("low"), x2="high:Q"
        ),
        alt.Chart(data(dots))
        .mark_circle(color="black", size=14, opacity=0.7, clip=True)
        .encode(x=x("seed_value"), y=y),
        base.mark_circle(color=GOOD, size=70, opacity=1, clip=True).encode(
            x=x("value"), tooltip=tooltip
        ),
    ]
    if report.spec.reference in means:
        at = data([{"value": means[report.spec.reference].value}])
        line = alt.Chart(at).mark_rule(color=_REFERENCE, strokeDash=[4, 3], strokeWidth=1)
        layers.insert(0, line.encode(x=x("value")))
    return alt.layer(*layers).properties(
        width=_WIDTH,
        height=_BAND * len(rows),
        title=alt.TitleParams(task or AVERAGE, fontSize=12, offset=6),
    )


def _mean(method: MethodSummary, task: str | None) -> SeedsMean:
    return method.average_score if task is None else method.scores[task]


def _domain(means: list[SeedsMean]) -> list[float]:
    """Holds every seed and interval over questions; that of two seeds would hide the rest."""
    values = [value for mean in means for value in (*mean.per_seed, *(mean.over_questions or ()))]
    low, high = min(values), max(values)
    margin = _MARGIN * (high - low) or 0.05
    return [max(0.0, low - margin), min(1.0, high + margin)]

"""Each method less the reference: estimate, interval and whether a difference is shown."""

from collections.abc import Sequence

import altair as alt

from jobs.compare_report.comparison import Measure, MethodDifference, Verdict
from jobs.compare_report.plots.score_panels import AVERAGE
from jobs.compare_report.report import CompareReport
from jobs.plot import BEST, GOOD, Plot, data, titled

_COLUMNS, _WIDTH, _BAND = 3, 220, 26
_COLOURS = {Verdict.BETTER: GOOD, Verdict.NOT_SHOWN: "#8A8A8A", Verdict.WORSE: BEST}
_AXES = {"score": "points (more is better)", "nll": "nats a token (less is better)"}
_LARGEST_SHARE = 3.0


def forest(report: CompareReport, measure: Measure) -> Plot | None:
    """A panel for each method, a line for each task; None where nothing is compared."""
    differences = [each for each in report.differences if each.measure == measure]
    if not differences:
        return None
    trained = {method.method for method in report.methods if method.seeds}
    panels = []
    for name in dict.fromkeys(each.method for each in differences):
        # The base model is far off, and would press the others together.
        alike = [each for each in differences if (each.method in trained) == (name in trained)]
        own = [each for each in differences if each.method == name]
        panels.append(_panel(own, measure, _domain(alike, measure)))
    title = f"Difference from {report.spec.reference}"
    if measure == "nll":
        title += " in the gold answers' negative log-likelihood"
    return Plot(
        f"differences_{measure}",
        title,
        alt.concat(*panels, columns=min(_COLUMNS, len(panels))).properties(
            title=titled(
                title,
                f"line: 95 % interval over {_over(differences)}; coloured: shown after Holm's "
                "correction;",
                "band: a true difference beyond it would have been shown in four cases of five",
            )
        ),
    )


def _panel(
    differences: Sequence[MethodDifference], measure: Measure, domain: list[float]
) -> alt.LayerChart:
    factor = _factor(measure)
    rows = [
        {
            "task": each.task or AVERAGE,
            "estimate": factor * each.estimate,
            "low": factor * each.low,
            "high": factor * each.high,
            "band_low": -factor * each.detectable if each.detectable is not None else domain[0],
            "band_high": factor * each.detectable if each.detectable is not None else domain[1],
            "verdict": each.verdict,
            "p": each.p_adjusted,
        }
        for each in differences
    ]
    scale = alt.Scale(domain=domain, nice=False)
    axis = alt.Axis(format="+~r", tickCount=5)

    def x(field: str) -> alt.X:
        return alt.X(f"{field}:Q", title=_AXES[measure], scale=scale, axis=axis)

    verdicts = list(_COLOURS)
    colour = alt.Color(
        "verdict:N",
        title=None,
        scale=alt.Scale(domain=verdicts, range=[_COLOURS[each] for each in verdicts]),
        legend=alt.Legend(orient="bottom", symbolOpacity=1),
    )
    base = alt.Chart(data(rows)).encode(
        y=alt.Y("task:N", sort=None, title=None, axis=alt.Axis(ticks=False, domain=False))
    )
    tooltip = [
        "task:N",
        alt.Tooltip("estimate:Q", format="+.4~g"),
        alt.Tooltip("low:Q", format="+.4~g"),
        alt.Tooltip("high:Q", format="+.4~g"),
        alt.Tooltip("p:Q", title="corrected p", format=".2g"),
        "verdict:N",
    ]
    zero = alt.Chart(data([{"zero": 0.0}])).mark_rule(color="black", strokeWidth=1)
    return alt.layer(
        base.mark_bar(color="#EFEFEF", height=18, clip=True).encode(
            x=x("band_low"), x2="band_high:Q"
        ),
        zero.encode(x=x("zero")),
        base.mark_rule(strokeWidth=2.2, clip=True).encode(x=x("low"), x2="high:Q", color=colour),
        base.mark_point(filled=True, size=70, opacity=1, clip=True).encode(
            x=x("estimate"),
            color=colour,
            shape=alt.Shape(
                "verdict:N",
                scale=alt.Scale(domain=verdicts, range=["triangle-up", "circle", "triangle-down"]),
                legend=None,
            ),
            tooltip=tooltip,
        ),
    ).properties(
        width=_WIDTH,
        height=_BAND * len(rows),
        title=alt.TitleParams(differences[0].method, fontSize=12, offset=6),
    )


def _domain(differences: Sequence[MethodDifference], measure: Measure) -> list[float]:
    """With 0 in its middle; one wide interval does not hide the rest."""
    reaches = sorted(max(-each.low, each.high) for each in differences)
    estimates = max(abs(each.estimate) for each in differences)
    most = max(estimates, min(reaches[-1], _LARGEST_SHARE * reaches[len(reaches) // 2]))
    reach = 1.08 * _factor(measure) * most or 1.0
    return [-reach, reach]


def _over(differences: Sequence[MethodDifference]) -> str:
    if all(each.holds_for == "methods" for each in differences):
        return "questions and seeds"
    return "questions, of one seed's adapters and not of their methods"


def _factor(measure: Measure) -> float:
    return 100.0 if measure == "score" else 1.0

"""Share of the variance that each field accounts for, with its interval."""

from collections.abc import Mapping, Sequence

import altair as alt

from jobs.plot import GOOD, Plot, data, titled
from jobs.search_report.importance import Importance
from jobs.search_report.plots.field_axis import FieldAxis, metric_name

_WIDTH, _BAR = 420, 34


def importance_bars(
    importances: Sequence[Importance], axes: Mapping[str, FieldAxis]
) -> Plot | None:
    """A bar for each field, a panel for each objective; None where nothing could be computed."""
    known = [importance for importance in importances if importance.fields]
    if not known:
        return None
    charts = [_panel(importance, axes) for importance in known]
    title = "How much each field matters"
    level = f"{100 * known[0].level:.0f} %"
    return Plot(
        "importance",
        title,
        alt.vconcat(*charts).properties(
            title=titled(
                title,
                f"share of the variance among {known[0].num_trials} trials that a field predicts,",
                f"judged on trials not seen; lines: {level} interval;",
                "an interaction counts for each of its fields",
            )
        ),
    )


def _panel(importance: Importance, axes: Mapping[str, FieldAxis]) -> alt.LayerChart:
    rows = [
        {
            "field": axes[share.field].name if share.field in axes else share.field,
            "share": share.estimate,
            "low": share.low,
            "high": share.high,
            "text": _percent(share.estimate, share.low, share.high),
        }
        for share in importance.fields
    ]
    base = alt.Chart(data(rows)).encode(y=alt.Y("field:N", sort=None, title=None))
    x = alt.X(
        "share:Q",
        title=f"share of the variance of {metric_name(importance.metric)}",
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(format=".0%"),
    )
    tooltip = ["field:N", alt.Tooltip("text:N", title="share")]
    return alt.layer(
        base.mark_bar(color=GOOD, opacity=0.75, height=16).encode(x=x, tooltip=tooltip),
        base.mark_rule(strokeWidth=1.8).encode(x="low:Q", x2="high:Q"),
        base.mark_tick(color="black", thickness=1.8, size=9).encode(x="low:Q"),
        base.mark_tick(color="black", thickness=1.8, size=9).encode(x="high:Q"),
        base.mark_text(align="left", dx=8, fontSize=11).encode(x="high:Q", text="text:N"),
    ).properties(width=_WIDTH, height=_BAR * len(rows))


def _percent(estimate: float, low: float, high: float) -> str:
    return f"{100 * estimate:.0f} % ({100 * low:.0f} to {100 * high:.0f})"

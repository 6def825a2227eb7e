"""What is paid in one objective for the other: all trials, and those that none beats in both."""

from collections.abc import Sequence

import altair as alt

from jobs.objective_specs import ObjectiveSpec
from jobs.plot import BEST, QUIET, Plot, data, titled
from jobs.search_report.outliers import without_outliers
from jobs.search_report.plots.field_axis import metric_name, metric_title
from jobs.search_report.trial_table import TrialRecord, completed, pareto_set

_WIDTH, _HEIGHT = 480, 340
_WIDE = 20.0


def pareto_front(
    trials: Sequence[TrialRecord], across: ObjectiveSpec, up: ObjectiveSpec
) -> Plot | None:
    """Two objectives against each other; None with fewer than two completed trials."""
    done = completed(trials, [across.metric, up.metric])
    if len(done) < 2:
        return None
    front = pareto_set(done, [across, up])
    on_front = {trial.trial_id for trial in front}
    xs = without_outliers([trial.objectives[across.metric] for trial in done], across.mode).tolist()
    ys = without_outliers([trial.objectives[up.metric] for trial in done], up.mode).tolist()
    rows = [
        {
            "trial": trial.trial_id,
            "x": x,
            "y": y,
            "low": y - trial.errors.get(up.metric, 0.0),
            "high": y + trial.errors.get(up.metric, 0.0),
            "front": trial.trial_id in on_front,
        }
        for trial, x, y in zip(done, xs, ys, strict=True)
    ]
    base = alt.Chart(data(rows)).encode(
        x=alt.X("x:Q", title=metric_title(across.metric), scale=_scale(xs), axis=_axis()),
        tooltip=[
            "trial:N",
            alt.Tooltip("x:Q", title=across.metric, format=".5~g"),
            alt.Tooltip("y:Q", title=up.metric, format=".5~g"),
        ],
    )
    y = alt.Y("y:Q", title=metric_title(up.metric), scale=_scale(ys), axis=_axis())
    others = base.transform_filter("!datum.front")
    best = base.transform_filter("datum.front")
    # From one trial of the front to the next, what is reached is what the worse one has.
    steps = "step-after" if across.mode == "min" else "step-before"
    title = f"{metric_name(up.metric)} against {metric_name(across.metric)}"
    chart = alt.layer(
        others.mark_circle(color=QUIET, size=45, opacity=0.9).encode(y=y),
        best.mark_line(color=BEST, interpolate=steps, strokeWidth=1.6, opacity=0.6).encode(
            y=y, order="x:Q"
        ),
        best.mark_rule(color=BEST).encode(y="low:Q", y2="high:Q"),
        best.mark_circle(color=BEST, size=80, opacity=1).encode(y=y),
        best.mark_text(align="left", dx=7, dy=-7, fontSize=10).encode(y=y, text="trial:N"),
    ).properties(
        width=_WIDTH,
        height=_HEIGHT,
        title=titled(title, "orange: no other trial is better in both"),
    )
    return Plot("pareto_front", title, chart)


def _scale(values: Sequence[float]) -> alt.Scale:
    low, high = min(values), max(values)
    is_log = low > 0 and high / low > _WIDE
    return alt.Scale(type="log" if is_log else "linear", zero=False, padding=18)


def _axis() -> alt.Axis:
    return alt.Axis(format="~s", tickCount=6)

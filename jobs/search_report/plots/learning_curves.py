"""A metric of every trial by optimizer step."""

import math
from collections.abc import Sequence

import altair as alt
import numpy as np

from jobs.objective_specs import ObjectiveSpec
from jobs.plot import BEST, FAILED, GOOD, Plot, Rows, data, titled
from jobs.search_report.plots.field_axis import metric_title
from jobs.search_report.trial_table import TrialRecord, rank
from jobs.tickets import TrialState

_WIDTH, _HEIGHT = 560, 320
_SHOWN_PART = 0.98
"""Values beyond this quantile are cut, where they would flatten the rest."""

_COLOURS = {
    "best": BEST,
    "completed": GOOD,
    "running": "#009E73",
    "ended early": "#8A8A8A",
    "failed": FAILED,
}
_ROLES = {
    TrialState.COMPLETED: "completed",
    TrialState.RUNNING: "running",
    TrialState.STOPPED: "ended early",
    TrialState.CANCELLED: "ended early",
    TrialState.FAILED: "failed",
}
_ORDER = ("running", "completed", "ended early", "failed", "best")


def learning_curves(
    trials: Sequence[TrialRecord],
    objective: ObjectiveSpec,
    metric: str,
    *,
    is_log: bool = False,
) -> Plot | None:
    """Curves of all trials, the best one in front; None where no trial has two points."""
    best = next((trial.trial_id for trial in rank(trials, [objective])), None)
    roles = {
        trial.trial_id: "best" if trial.trial_id == best else _ROLES[trial.state]
        for trial in trials
    }
    in_front_last = sorted(trials, key=lambda trial: _ORDER.index(roles[trial.trial_id]))
    rows: Rows = []
    for trial in in_front_last:
        common = {"trial": trial.trial_id, "role": roles[trial.trial_id], "end": False}
        points = [
            common | {"step": step, "value": value}
            for step, value in trial.curves.get(metric, ())
            if math.isfinite(value) and (value > 0 or not is_log)
        ]
        if points and common["role"] in ("ended early", "failed"):
            points[-1]["end"] = True
        rows += points
    if len(rows) == len({row["trial"] for row in rows}):
        return None
    present = [role for role in _COLOURS if any(row["role"] == role for row in rows)]
    domain = _domain([row["value"] for row in rows], is_log=is_log)
    base = alt.Chart(data(rows)).encode(
        x=alt.X("step:Q", title="optimizer step", scale=alt.Scale(nice=False)),
        y=alt.Y(
            "value:Q",
            title=metric_title(metric),
            scale=alt.Scale(type="log" if is_log else "linear", domain=domain, nice=False),
            axis=alt.Axis(format="~g"),
        ),
        detail="trial:N",
        tooltip=["trial:N", "role:N", "step:Q", alt.Tooltip("value:Q", format=".5~g")],
    )
    colour = alt.Color(
        "role:N",
        title=None,
        scale=alt.Scale(domain=present, range=[_COLOURS[role] for role in present]),
        legend=alt.Legend(symbolOpacity=1, symbolStrokeWidth=3),
    )
    light = 0.3 if len(trials) > 60 else 0.55
    hover = alt.selection_point(fields=["trial"], on="pointerover", empty=False)
    others = (
        base.transform_filter("datum.role != 'best'")
        .mark_line(clip=True)
        .encode(
            color=colour,
            opacity=alt.condition(hover, alt.value(1), alt.value(light)),
            strokeWidth=alt.condition(hover, alt.value(3), alt.value(1.2)),
        )
        .add_params(hover)
    )
    ends = base.transform_filter("datum.end").mark_circle(clip=True, size=26, opacity=1)
    front = base.transform_filter("datum.role == 'best'").mark_line(
        clip=True, strokeWidth=3, point=alt.OverlayMarkDef(size=28)
    )
    title = f"{metric} of every trial" if metric != "train/curvature" else "How learned K moves"
    return Plot(
        f"curves_{metric.replace('/', '_')}",
        title,
        alt.layer(others, ends.encode(color=colour), front.encode(color=colour)).properties(
            width=_WIDTH,
            height=_HEIGHT,
            title=titled(title, *([f"orange: the best, {best}"] if best else [])),
        ),
    )


def _domain(values: list[float], *, is_log: bool) -> list[float]:
    """From the least to the largest; a few that lie far above the rest are cut."""
    low, high = min(values), max(values)
    usual = float(np.quantile(values, _SHOWN_PART))
    if not is_log and high - low > 3 * (usual - low) > 0:
        high = low + 1.5 * (usual - low)
    if is_log:
        return [low * 0.9, high * 1.1]
    margin = (high - low) * 0.04 or abs(high) * 0.05 or 1.0
    return [low - margin, high + margin]

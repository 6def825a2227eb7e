"""Every trial as a line through its values, coloured by what it reached."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from jobs.objective_specs import ObjectiveSpec
from jobs.plot import BEST, FAILED, QUIET, SCALE, Plot, Rows, data, titled
from jobs.search_report.outliers import without_outliers
from jobs.search_report.plots.field_axis import FieldAxis, metric_title
from jobs.search_report.trial_table import TrialRecord, completed, rank
from jobs.search_report.value_labels import number_label, value_label
from jobs.tickets import TrialState

_HEIGHT = 300
_AXIS_DISTANCE = 165
_MANY = 60
"""Trials beyond which lines are drawn lightly."""


def parallel_coordinates(
    trials: Sequence[TrialRecord], axes: Mapping[str, FieldAxis], objective: ObjectiveSpec
) -> Plot | None:
    """Lines through all fields and the objective; None with fewer than two completed trials."""
    done = rank(trials, [objective])
    if len(done) < 2 or not axes:
        return None
    shown = without_outliers([trial.objectives[objective.metric] for trial in done], objective.mode)
    low, high = float(shown.min()), float(shown.max())
    unfinished = [
        trial
        for trial in trials
        if trial.state in (TrialState.STOPPED, TrialState.FAILED, TrialState.CANCELLED)
    ]
    lines = [_points(trial, axes, objective, (low, high)) for trial in [*unfinished, *done[::-1]]]
    rows = [row for line in lines for row in line]
    last = len(axes)
    x = alt.X("axis:Q", axis=None, scale=alt.Scale(domain=[-0.25, last + 0.25], nice=False))
    y = alt.Y("position:Q", axis=None, scale=alt.Scale(domain=[-0.02, 1.18], nice=False))
    hover = alt.selection_point(fields=["trial"], on="pointerover", empty=False, nearest=False)
    opacity = 0.45 if len(trials) > _MANY else 0.75
    tooltip = _tooltip(axes, objective)
    base = alt.Chart(data(rows)).encode(x=x, y=y, detail="trial:N", order="axis:Q")
    quiet = (
        base.transform_filter("datum.state != 'completed'")
        .mark_line(strokeWidth=1, opacity=0.7)
        .encode(
            color=alt.condition("datum.state == 'failed'", alt.value(FAILED), alt.value(QUIET)),
            strokeDash=alt.condition(
                "datum.state == 'failed'", alt.value([2, 3]), alt.value([1, 0])
            ),
            tooltip=tooltip,
        )
    )
    scale = alt.Scale(scheme=SCALE, domain=[low, high], clamp=True, reverse=objective.mode == "max")
    coloured = (
        base.transform_filter("datum.state == 'completed'")
        .mark_line()
        .encode(
            color=alt.Color(
                "objective:Q",
                scale=scale,
                legend=None,  # the last axis says it
            ),
            opacity=alt.condition(hover, alt.value(1), alt.value(opacity)),
            strokeWidth=alt.condition(hover, alt.value(4), alt.value(1.6)),
            tooltip=tooltip,
        )
        .add_params(hover)
    )
    best = base.transform_filter(alt.datum.trial == done[0].trial_id).mark_line(
        strokeWidth=3, color=BEST
    )
    chart = alt.layer(quiet, coloured, best, *_scaffold(axes, objective, (low, high), x, y))
    title = "Every trial of the search"
    return Plot(
        "parallel_coordinates",
        title,
        chart.properties(
            width=_AXIS_DISTANCE * last,
            height=_HEIGHT,
            title=titled(title, *_subtitle(trials, done[0])),
        ),
    )


def _points(
    trial: TrialRecord,
    axes: Mapping[str, FieldAxis],
    objective: ObjectiveSpec,
    extent: tuple[float, float],
) -> Rows:
    """One row for each axis that the trial reaches; all hold what the tooltip says."""
    common: dict[str, Any] = {"trial": trial.trial_id, "state": str(trial.state)}
    common |= {_column(field): value_label(trial.values[field]) for field in axes}
    if is_done := bool(completed([trial], [objective.metric])):
        common["objective"] = trial.objectives[objective.metric]
    rows = [
        common | {"axis": index, "position": axis.position(trial.values[field])}
        for index, (field, axis) in enumerate(axes.items())
    ]
    if is_done:
        rows.append(common | {"axis": len(axes), "position": _share(common["objective"], extent)})
    return rows


def _share(number: float, extent: tuple[float, float]) -> float:
    low, high = extent
    return min(max((number - low) / (high - low), 0.0), 1.0) if high > low else 0.5


def _column(field: str) -> str:
    """Vega reads a dot in a column's name as a path."""
    return field.replace(".", " ")


def _tooltip(axes: Mapping[str, FieldAxis], objective: ObjectiveSpec) -> list[alt.Tooltip]:
    fields = [alt.Tooltip(f"{_column(field)}:N", title=axis.title) for field, axis in axes.items()]
    result = alt.Tooltip("objective:Q", title=objective.metric, format=".5~g")
    return [alt.Tooltip("trial:N"), alt.Tooltip("state:N"), *fields, result]


def _subtitle(trials: Sequence[TrialRecord], best: TrialRecord) -> list[str]:
    states = {trial.state for trial in trials}
    meanings = [f"orange: the best, {best.trial_id}"]
    if TrialState.STOPPED in states or TrialState.CANCELLED in states:
        meanings.append("grey: ended early")
    if TrialState.FAILED in states:
        meanings.append("dotted: failed")
    return ["; ".join(meanings)]


def _scaffold(
    axes: Mapping[str, FieldAxis],
    objective: ObjectiveSpec,
    extent: tuple[float, float],
    x: alt.X,
    y: alt.Y,
) -> list[alt.Chart]:
    """Axis lines with their labels and titles."""
    low, high = extent
    ticks: Rows = [
        {"axis": index, "position": position, "label": label}
        for index, axis in enumerate(axes.values())
        for position, label in axis.ticks()
    ]
    ticks += [
        {"axis": len(axes), "position": i / 4, "label": number_label(low + (high - low) * i / 4)}
        for i in range(5)
    ]
    titles: Rows = [
        {"axis": index, "position": 1.17, "label": title.replace(" (", "\n(")}
        for index, title in enumerate(
            [axis.title for axis in axes.values()] + [metric_title(objective.metric)]
        )
    ]
    rules: Rows = [{"axis": index, "position": 0, "end": 1} for index in range(len(axes) + 1)]
    encoding = {"x": x, "y": y, "text": alt.Text("label:N")}
    label = {"align": "right", "dx": -7, "fontSize": 11}
    return [
        alt.Chart(data(rules)).mark_rule(color="#333").encode(x=x, y=y, y2="end:Q"),
        alt.Chart(data(ticks))
        .mark_tick(color="#333", size=8, orient="horizontal")
        .encode(x=x, y=y),
        alt.Chart(data(ticks))
        .mark_text(**label, stroke="white", strokeWidth=3, strokeOpacity=0.85)
        .encode(**encoding),
        alt.Chart(data(ticks)).mark_text(**label).encode(**encoding),
        alt.Chart(data(titles))
        .mark_text(fontSize=12, fontWeight="bold", lineBreak="\n", baseline="top")
        .encode(**encoding),
    ]

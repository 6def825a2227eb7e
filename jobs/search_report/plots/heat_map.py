"""The objective over two fields, such as K and r: a heat map, and one line for each r."""

import math
from collections.abc import Sequence

import altair as alt

from jobs.objective_specs import ObjectiveSpec
from jobs.plot import GOOD, QUIET, SCALE, Plot, data, titled
from jobs.search_report.outliers import without_outliers
from jobs.search_report.plots.cells import Cell, cells
from jobs.search_report.plots.field_axis import FieldAxis, metric_name, metric_title
from jobs.search_report.trial_table import TrialRecord, completed

_CELL_WIDTH, _CELL_HEIGHT = 112, 58
_PANEL_WIDTH, _PANEL_HEIGHT = 190, 200
_PANELS_A_ROW = 4


def heat_map(
    trials: Sequence[TrialRecord], across: FieldAxis, up: FieldAxis, objective: ObjectiveSpec
) -> Plot | None:
    """Mean objective and its standard error in each cell; None unless two cells hold a trial."""
    found = cells(trials, across, up, objective.metric)
    if len(found) < 2:
        return None
    shown = without_outliers([cell.mean for cell in found], objective.mode)
    low, high = float(shown.min()), float(shown.max())
    is_max = objective.mode == "max"
    rows = [
        {
            "across": cell.across.label,
            "up": cell.up.label,
            "mean": cell.mean,
            "trials": cell.num_trials,
            "text": _text(cell, high - low),
            "count": f"{cell.num_trials} trial{'s' if cell.num_trials > 1 else ''}",
            "ink": "black" if (cell.mean > (low + high) / 2) != is_max else "white",
        }
        for cell in found
    ]
    # The domain keeps the order of the axis; Vega-Lite would sort labels as text.
    across_labels = _labels(found, is_across=True)
    up_labels = _labels(found, is_across=False)[::-1]
    base = alt.Chart(data(rows)).encode(
        x=alt.X(
            "across:O",
            title=across.title,
            scale=alt.Scale(domain=across_labels),
            axis=alt.Axis(labelAngle=0),
        ),
        y=alt.Y("up:O", title=up.title, scale=alt.Scale(domain=up_labels)),
    )
    cell_colour = alt.Color(
        "mean:Q",
        title=f"mean {metric_name(objective.metric)}",
        scale=alt.Scale(scheme=SCALE, domain=[low, high], clamp=True, reverse=is_max),
    )
    ink = alt.Color("ink:N", scale=None)
    chart = alt.layer(
        base.mark_rect(stroke="white", strokeWidth=2).encode(
            color=cell_colour,
            tooltip=[
                alt.Tooltip("across:O", title=across.title),
                alt.Tooltip("up:O", title=up.title),
                alt.Tooltip("text:N", title=f"mean {metric_name(objective.metric)}"),
                "trials:Q",
            ],
        ),
        base.mark_text(dy=-7, fontSize=12).encode(text="text:N", color=ink),
        base.mark_text(dy=9, fontSize=10).encode(text="count:N", color=ink),
    ).resolve_scale(color="independent")
    title = f"{metric_name(objective.metric)} over {across.name} and {up.name}"
    return Plot(
        f"heat_map_{_stem(across)}_{_stem(up)}",
        title,
        chart.properties(
            width=_CELL_WIDTH * len(across_labels),
            height=_CELL_HEIGHT * len(up_labels),
            title=titled(
                title,
                "mean of the completed trials in a cell ± standard error;",
                "other fields vary within a cell",
            ),
        ),
    )


def panels(
    trials: Sequence[TrialRecord], across: FieldAxis, by: FieldAxis, objective: ObjectiveSpec
) -> Plot | None:
    """The objective against one numeric field, a panel for each value or bin of another.

    Dots are trials; the line joins the means, with their standard errors, of the bins.
    """
    found = cells(trials, across, by, objective.metric)
    if len(found) < 2 or not across.is_numeric:
        return None
    done = completed(trials, [objective.metric])
    shown = without_outliers([trial.objectives[objective.metric] for trial in done], objective.mode)
    rows = [
        {
            "panel": by.bin_of(trial.values[by.field]).label,
            "value": trial.values[across.field],
            "single": value,
            "trial": trial.trial_id,
        }
        for trial, value in zip(done, shown.tolist(), strict=True)
    ]
    rows += [
        {
            "panel": cell.up.label,
            "value": cell.across.centre,
            "mean": cell.mean,
            "low": cell.mean - (cell.error or 0),
            "high": cell.mean + (cell.error or 0),
            "trials": cell.num_trials,
        }
        for cell in found
    ]
    kind = "log" if across.is_log else "linear"
    margin = (float(shown.max()) - float(shown.min())) * 0.06
    y_scale = alt.Scale(
        domain=[float(shown.min()) - margin, float(shown.max()) + margin], zero=False, nice=False
    )
    values = alt.Axis(
        format="~g", tickCount=4, **({"values": across.decades()} if across.is_log else {})
    )
    x = alt.X(
        "value:Q",
        title=across.title,
        scale=alt.Scale(type=kind, domain=[across.low, across.high], zero=False, nice=False),
        axis=values,
    )
    y_title = metric_title(objective.metric)
    base = alt.Chart().encode(x=x)
    tooltip = [alt.Tooltip("mean:Q", format=".4~g"), "trials:Q"]
    chart = alt.layer(
        base.mark_circle(size=28, color=QUIET, opacity=0.8).encode(
            y=alt.Y("single:Q", title=y_title, scale=y_scale),
            tooltip=["trial:N", alt.Tooltip("single:Q", title=objective.metric, format=".5~g")],
        ),
        base.mark_rule(color=GOOD, strokeWidth=1.6, clip=True).encode(y="low:Q", y2="high:Q"),
        base.mark_line(color=GOOD, clip=True)
        .transform_filter("isValid(datum.mean)")
        .encode(y="mean:Q"),
        base.mark_point(color=GOOD, filled=True, size=50, opacity=1, clip=True).encode(
            y="mean:Q", tooltip=tooltip
        ),
        data=data(rows),
    ).properties(width=_PANEL_WIDTH, height=_PANEL_HEIGHT)
    title = f"{metric_name(objective.metric)} against {across.name}, by {by.name}"
    return Plot(
        f"panels_{_stem(across)}_{_stem(by)}",
        title,
        chart.facet(
            facet=alt.Facet("panel:O", title=by.title, sort=_labels(found, is_across=False)),
            columns=_PANELS_A_ROW,
        ).properties(title=titled(title, "grey: trials; blue: mean of a bin ± standard error")),
    )


def _text(cell: Cell, extent: float) -> str:
    """Mean and error with as many decimals as tell cells apart."""
    decimals = min(max(2 - math.floor(math.log10(extent)), 0), 9) if extent else 3
    mean = f"{cell.mean:.{decimals}f}"
    return mean if cell.error is None else f"{mean} ± {cell.error:.{decimals}f}"


def _labels(found: Sequence[Cell], *, is_across: bool) -> list[str]:
    bins = {cell.across if is_across else cell.up for cell in found}
    return [each.label for each in sorted(bins, key=lambda each: each.index)]


def _stem(axis: FieldAxis) -> str:
    return axis.field.partition(".")[2]

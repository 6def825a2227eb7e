"""Curvature K: over the training, and where it has come to in each layer."""

import re
from collections.abc import Mapping, Sequence

import altair as alt

from hyplora.analysis.adapter_effect import AdapterEffect
from jobs.analysis_report.report import CurvaturePoint
from jobs.search_report.plots.plot import GOOD, Plot, data, titled

_WIDTH, _HEIGHT = 520, 260
_TITLE = "curvature K (in units of ν²)"
_NOTE = "the larger K, the closer to LoRA"


def curvature_over_training(
    series: Mapping[str, Sequence[CurvaturePoint]],
) -> Plot | None:
    """A line for each series; None if there is none with two points."""
    rows = [
        {"step": point.step, "curvature": point.curvature, "series": name}
        for name, points in series.items()
        if len(points) > 1
        for point in points
    ]
    if not rows:
        return None
    title = "Curvature over the training"
    names = list(dict.fromkeys(str(row["series"]) for row in rows))
    colour = alt.Color("series:N", title=None, sort=names) if len(names) > 1 else alt.value(GOOD)
    return Plot(
        "curvature_over_training",
        title,
        alt.Chart(data(rows))
        .mark_line()
        .encode(
            x=alt.X("step:Q", title="optimizer steps"),
            y=alt.Y("curvature:Q", title=_TITLE, scale=alt.Scale(zero=False)),
            color=colour,
            tooltip=["series:N", "step:Q", alt.Tooltip("curvature:Q", format=".4g")],
        )
        .properties(width=_WIDTH, height=_HEIGHT, title=titled(title, _NOTE)),
    )


def curvature_by_layer(effect: AdapterEffect) -> Plot | None:
    """A dot for each layer; None if all have the same K."""
    rows = []
    for layer in effect.layers:
        number = re.search(r"\.(\d+)\.", layer.name)
        rows.append(
            {
                "block": int(number.group(1)) if number else 0,
                "kind": layer.name.rpartition(".")[2],
                "curvature": layer.geometry.curvature,
            }
        )
    if len({row["curvature"] for row in rows}) < 2:
        return None
    title = "Curvature by layer"
    return Plot(
        "curvature_by_layer",
        title,
        alt.Chart(data(rows))
        .mark_line(point=True)
        .encode(
            x=alt.X("block:Q", title="block", axis=alt.Axis(tickMinStep=1, format="d")),
            y=alt.Y("curvature:Q", title=_TITLE, scale=alt.Scale(zero=False)),
            color=alt.Color("kind:N", title=None),
            tooltip=["kind:N", "block:Q", alt.Tooltip("curvature:Q", format=".4g")],
        )
        .properties(width=_WIDTH, height=_HEIGHT, title=titled(title, _NOTE)),
    )

"""Curvature K: over the training, and where it has come to in each layer."""

import re
from collections.abc import Mapping, Sequence
from statistics import fmean

import altair as alt

from hyplora.analysis.adapter_effect import AdapterEffect
from jobs.analysis_report.report import CurvaturePoint
from jobs.plot import GOOD, Plot, Rows, data, titled

_WIDTH, _HEIGHT = 520, 260
_TITLE = "curvature K (in units of ν²)"
_SHOWN = ("curvature", "low", "high")
_NOTE = "the larger K, the closer to LoRA"


def curvature_over_training(
    series: Mapping[str, Sequence[CurvaturePoint]],
) -> Plot | None:
    """A line for each kind of layer, or for a mean over all; None if none has two points."""
    rows = [row for kind, values in _by_kind(series).items() for row in _kind_rows(kind, values)]
    if not rows:
        return None
    title = "Curvature over the training"
    names = list(dict.fromkeys(str(row["kind"]) for row in rows))
    colour = alt.Color("kind:N", title=None, sort=names) if len(names) > 1 else alt.value(GOOD)
    note = f"{_NOTE}; mean over the blocks" if len(series) > len(names) else _NOTE
    return Plot(
        "curvature_over_training",
        title,
        alt.Chart(data(rows))
        .mark_line()
        .encode(
            x=alt.X("step:Q", title="optimizer steps", scale=alt.Scale(nice=False)),
            y=alt.Y("curvature:Q", title=_TITLE, scale=alt.Scale(zero=False)),
            color=colour,
            tooltip=["kind:N", "step:Q", *(alt.Tooltip(f"{k}:Q", format=".4g") for k in _SHOWN)],
        )
        .properties(width=_WIDTH, height=_HEIGHT, title=titled(title, note)),
    )


def _by_kind(
    series: Mapping[str, Sequence[CurvaturePoint]],
) -> dict[str, dict[int, list[float]]]:
    """K of each step by kind of layer, the last part of its name."""
    kinds: dict[str, dict[int, list[float]]] = {}
    for name, points in series.items():
        steps = kinds.setdefault(name.rpartition(".")[2], {})
        for point in points:
            steps.setdefault(point.step, []).append(point.curvature)
    return kinds


def _kind_rows(kind: str, values: Mapping[int, Sequence[float]]) -> Rows:
    if len(values) < 2:
        return []
    return [
        {"kind": kind, "step": step, "curvature": fmean(k), "low": min(k), "high": max(k)}
        for step, k in sorted(values.items())
    ]


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
            x=alt.X(
                "block:Q",
                title="block",
                scale=alt.Scale(nice=False),
                axis=alt.Axis(tickMinStep=1, format="d"),
            ),
            y=alt.Y("curvature:Q", title=_TITLE, scale=alt.Scale(zero=False)),
            color=alt.Color("kind:N", title=None, sort=None),
            tooltip=["kind:N", "block:Q", alt.Tooltip("curvature:Q", format=".4g")],
        )
        .properties(width=_WIDTH, height=_HEIGHT, title=titled(title, _NOTE)),
    )

"""Gain and displacement of every adapted layer, from the first block to the last."""

import re

import altair as alt

from hyplora.analysis.adapter_effect import AdapterEffect, LayerEffect, Spread
from jobs.analysis_report.plots.log_axis import decades
from jobs.plot import GOOD, Plot, Rows, data, titled

_WIDTH, _HEIGHT = 250, 150
_COLUMNS = 3
_SHOWN = ("p05", "median", "p95", "largest")


def gains(effect: AdapterEffect) -> Plot:
    """The spread of the gain over tokens in each layer."""
    spreads = {layer.name: layer.gain for layer in effect.layers}
    title, axis = "Gain by layer", "gain (1 is LoRA)"
    # One layer with a large gain would flatten all others.
    return _panels(effect, "gain", title, axis, spreads, is_shared=False)


def displacements(effect: AdapterEffect) -> Plot | None:
    """The spread of the displacement in each layer; None if the adapter moves nothing."""
    spreads = {layer.name: layer.displacement for layer in effect.layers}
    if not any(spread.p95 for spread in spreads.values()):
        return None
    title, axis = "How far each layer moves its outputs", "|Δy| / |y|"
    return _panels(effect, "displacement", title, axis, spreads, is_shared=True)


def _panels(
    effect: AdapterEffect,
    name: str,
    title: str,
    axis: str,
    spreads: dict[str, Spread],
    *,
    is_shared: bool,
) -> Plot:
    rows = [_row(layer, spreads[layer.name]) for layer in effect.layers]
    by_kind: dict[str, Rows] = {}
    for row in rows:
        by_kind.setdefault(str(row["kind"]), []).append(row)
    charts = [
        _panel(of_kind, kind, _y(rows if is_shared else of_kind, axis))
        for kind, of_kind in by_kind.items()
    ]
    scales = "" if is_shared else "; each panel has its own scale"
    note = f"over {effect.num_tokens} tokens; line: median, bands: middle 50 % and 90 %{scales}"
    return Plot(
        name,
        title,
        alt.concat(*charts, columns=_COLUMNS)
        .resolve_scale(y="shared" if is_shared else "independent")
        .properties(title=titled(title, note)),
    )


def _y(rows: Rows, title: str) -> dict[str, object]:
    """The vertical axis of what some panels show: logarithmic where it spans a lot."""
    low, high = min(row["p05"] for row in rows), max(row["p95"] for row in rows)
    if low > 0 and high / low > 20:
        axis = alt.Axis(format="~g", values=decades(low, high))
        return {"title": title, "scale": alt.Scale(type="log"), "axis": axis}
    axis = alt.Axis(format="~g", tickCount=5)
    return {"title": title, "scale": alt.Scale(zero=False), "axis": axis}


def _panel(rows: Rows, kind: str, y: dict[str, object]) -> alt.LayerChart:
    base = alt.Chart(data(rows)).encode(
        x=alt.X(
            "block:Q",
            title="block",
            scale=alt.Scale(nice=False),
            axis=alt.Axis(tickMinStep=1, format="d"),
        )
    )
    outer = base.mark_area(color=GOOD, opacity=0.18).encode(y=alt.Y("p05:Q", **y), y2="p95:Q")
    inner = base.mark_area(color=GOOD, opacity=0.3).encode(y=alt.Y("p25:Q", **y), y2="p75:Q")
    line = base.mark_line(color=GOOD, point=alt.OverlayMarkDef(color=GOOD, size=18)).encode(
        y=alt.Y("median:Q", **y),
        tooltip=[
            "layer:N",
            *(alt.Tooltip(f"{name}:Q", format=".3g") for name in _SHOWN),
            alt.Tooltip("curvature:Q", format=".3g", title="K"),
        ],
    )
    return alt.layer(outer, inner, line).properties(width=_WIDTH, height=_HEIGHT, title=kind)


def _row(layer: LayerEffect, spread: Spread) -> dict[str, object]:
    """A layer's place: the first number in its name is the block, the rest its kind."""
    number = re.search(r"\.(\d+)\.", layer.name)
    return {
        "layer": layer.name,
        "kind": layer.name.rpartition(".")[2],
        "block": int(number.group(1)) if number else 0,
        "curvature": layer.geometry.curvature,
        "p05": spread.p05,
        "p25": spread.p25,
        "median": spread.median,
        "p75": spread.p75,
        "p95": spread.p95,
        "largest": spread.largest,
    }

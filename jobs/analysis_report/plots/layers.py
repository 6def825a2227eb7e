"""Gain and displacement of every adapted layer, from the first block to the last."""

import re

import altair as alt

from hyplora.analysis.adapter_effect import AdapterEffect, LayerEffect, Spread
from jobs.search_report.plots.plot import Plot, Rows, data, titled

_WIDTH, _HEIGHT = 250, 150
_COLUMNS = 3
_SHOWN = ("p05", "median", "p95", "largest")


def gains(effect: AdapterEffect) -> Plot:
    """The spread of the gain over tokens in each layer."""
    return _panels(
        effect,
        "gain",
        "Gain by layer",
        "gain (1 is LoRA)",
        {layer.name: layer.gain for layer in effect.layers},
    )


def displacements(effect: AdapterEffect) -> Plot | None:
    """The spread of the displacement in each layer; None if the adapter moves nothing."""
    spreads = {layer.name: layer.displacement for layer in effect.layers}
    if not any(spread.p95 for spread in spreads.values()):
        return None
    return _panels(
        effect, "displacement", "How far each layer moves its outputs", "|Δy| / |y|", spreads
    )


def _panels(
    effect: AdapterEffect, name: str, title: str, axis: str, spreads: dict[str, Spread]
) -> Plot:
    rows = [_row(layer, spreads[layer.name]) for layer in effect.layers]
    kinds = list(dict.fromkeys(str(row["kind"]) for row in rows))
    charts = [_panel([row for row in rows if row["kind"] == kind], kind, axis) for kind in kinds]
    return Plot(
        name,
        title,
        alt.concat(*charts, columns=_COLUMNS)
        .resolve_scale(y="shared")
        .properties(
            title=titled(
                title,
                f"over {effect.num_tokens} tokens; line: median, bands: middle 50 % and 90 %",
            )
        ),
    )


def _panel(rows: Rows, kind: str, axis: str) -> alt.LayerChart:
    low, high = min(row["p05"] for row in rows), max(row["p95"] for row in rows)
    is_log = low > 0 and high / low > 20
    scale = alt.Scale(type="log" if is_log else "linear", zero=False)
    base = alt.Chart(data(rows)).encode(
        x=alt.X("block:Q", title="block", axis=alt.Axis(tickMinStep=1, format="d"))
    )
    y_axis = alt.Axis(format="~g", tickCount=5)
    colour = "#0072B2"
    outer = base.mark_area(color=colour, opacity=0.18).encode(
        y=alt.Y("p05:Q", title=axis, scale=scale, axis=y_axis), y2="p95:Q"
    )
    inner = base.mark_area(color=colour, opacity=0.3).encode(
        y=alt.Y("p25:Q", title=axis, scale=scale), y2="p75:Q"
    )
    line = base.mark_line(color=colour, point=True).encode(
        y=alt.Y("median:Q", title=axis, scale=scale),
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

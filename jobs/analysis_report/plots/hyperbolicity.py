"""Relative deltas of all prompts: a strip for embeddings and for final hidden states."""

import altair as alt

from hyplora.analysis.hyperbolicity import HyperbolicitySummary
from hyplora.analysis.prompt_hyperbolicity import PromptHyperbolicity
from jobs.plot import GOOD, QUIET, Plot, data, titled

_WIDTH, _STRIP = 520, 64


def hyperbolicity_strips(found: PromptHyperbolicity) -> Plot | None:
    """A dot for each prompt, with mean and standard deviation; None if none was measured."""
    clouds = {"token embeddings": found.embeddings}
    if found.hidden_without_adapter is None:
        clouds["final hidden states"] = found.hidden
    else:
        clouds["hidden, without adapter"] = found.hidden_without_adapter
        clouds["hidden, with adapter"] = found.hidden
    rows = [row for name, summary in clouds.items() for row in _rows(name, summary)]
    if not rows:
        return None
    y = alt.Y("cloud:N", sort=list(clouds), title=None, axis=alt.Axis(labelLimit=200))
    x = alt.X(
        "relative:Q",
        title="relative delta, 2δ / diameter",
        scale=alt.Scale(zero=True),
        axis=alt.Axis(tickCount=6),
    )
    base = alt.Chart(data(rows)).encode(y=y)
    shift = alt.YOffset("jitter:Q", scale=alt.Scale(domain=[-1.6, 1.6]))
    dots = base.mark_circle(color=QUIET, size=34, opacity=0.75).encode(
        x=x,
        yOffset=shift,
        tooltip=["prompt:Q", alt.Tooltip("relative:Q", format=".4f"), "points:Q"],
    )
    means = base.transform_filter("isValid(datum.mean)")
    title = "How tree-like the points of a prompt are"
    return Plot(
        "hyperbolicity",
        title,
        alt.layer(
            dots,
            means.mark_rule(color=GOOD, strokeWidth=2).encode(x="low:Q", x2="high:Q"),
            means.mark_point(color=GOOD, filled=True, size=90, opacity=1).encode(x="mean:Q"),
        ).properties(
            width=_WIDTH,
            height=_STRIP * len(clouds),
            title=titled(
                title,
                "grey: prompts; blue: mean ± standard deviation; 0 is a tree",
            ),
        ),
    )


def _rows(name: str, summary: HyperbolicitySummary) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = [
        {
            "cloud": name,
            "prompt": number,
            "relative": cloud.relative,
            "points": cloud.num_points,
            "jitter": (number * 0.618) % 1 * 2 - 1,  # spreads neighbours, the same each time
        }
        for number, cloud in enumerate(summary.clouds)
        if cloud is not None
    ]
    if summary.mean_relative is not None:
        sd = summary.sd_relative or 0.0
        mean = summary.mean_relative
        rows.append({"cloud": name, "mean": mean, "low": max(mean - sd, 0), "high": mean + sd})
    return rows

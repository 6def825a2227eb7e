"""Embedding norm against frequency, with the paper's groups of words among the bins."""

import math
from collections.abc import Sequence

import altair as alt

from hyplora.analysis.token_norms import NormsByFrequency
from hyplora.analysis.word_groups import WordGroupNorms
from jobs.search_report.plots.plot import GOOD, Plot, data, titled

_WIDTH, _HEIGHT = 520, 330
_GROUP_COLOURS = ["#D55E00", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#000000"]


def norms_by_frequency_plot(norms: NormsByFrequency, groups: Sequence[WordGroupNorms]) -> Plot:
    """The mean and standard deviation of each bin, and a dot for each word that occurs."""
    bins = [
        {
            "count": math.exp(each.mean_log_count),
            "norm": each.mean_norm,
            "low": each.mean_norm - (each.sd_norm or 0),
            "high": each.mean_norm + (each.sd_norm or 0),
            "tokens": each.num_tokens,
        }
        for each in norms.bins
    ]
    words = [
        {"count": word.count, "norm": word.norm, "word": word.word, "group": group.name}
        for group in groups
        for word in group.words
        if word.count
    ]
    x = alt.X(
        "count:Q",
        title="times a token occurs",
        scale=alt.Scale(type="log"),
        axis=alt.Axis(format="~s", tickCount=6),
    )
    y_scale = alt.Scale(zero=False)
    y = alt.Y("norm:Q", title="embedding norm", scale=y_scale)
    base = alt.Chart(data(bins)).encode(x=x)
    tooltip = ["tokens:Q", alt.Tooltip("norm:Q", format=".4f")]
    layers = [
        base.mark_rule(color=GOOD, opacity=0.5).encode(
            y=alt.Y("low:Q", scale=y_scale), y2="high:Q"
        ),
        base.mark_line(color=GOOD).encode(y=y),
        base.mark_point(color=GOOD, filled=True, size=60, opacity=1).encode(y=y, tooltip=tooltip),
    ]
    if words:
        layers.append(_words(words, [group.name for group in groups], x, y))
    rho = "none" if norms.spearman is None else f"{norms.spearman:+.2f}"
    title = f"Embedding norm against frequency: rho = {rho}"
    return Plot(
        "norms_by_frequency",
        title,
        alt.layer(*layers).properties(
            width=_WIDTH,
            height=_HEIGHT,
            title=titled(title, "blue: mean of a bin ± standard deviation; other dots: words"),
        ),
    )


def _words(
    words: list[dict[str, object]], groups: Sequence[str], x: alt.X, y: alt.Y
) -> alt.LayerChart:
    colour = alt.Color(
        "group:N",
        title=None,
        scale=alt.Scale(domain=list(groups), range=_GROUP_COLOURS[: len(groups)]),
        legend=alt.Legend(orient="bottom", columns=2),
    )
    base = alt.Chart(data(words)).encode(x=x, y=y, color=colour)
    return alt.layer(
        base.mark_circle(size=48, opacity=0.9).encode(
            tooltip=["word:N", "count:Q", alt.Tooltip("norm:Q", format=".4f")]
        ),
        base.mark_text(align="left", dx=5, dy=-4, fontSize=9).encode(text="word:N"),
    )

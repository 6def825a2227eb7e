"""Embedding norm against frequency, with the paper's groups of words among the bins."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt

from hyplora.analysis.token_norms import NormsByFrequency
from hyplora.analysis.word_groups import WordGroupNorms
from jobs.analysis_report.plots.labels import place_labels
from jobs.analysis_report.plots.log_axis import decades
from jobs.plot import GOOD, Plot, Rows, data, titled

_WIDTH, _HEIGHT = 520, 330
_GROUP_COLOURS = ["#D55E00", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#000000"]


def norms_by_frequency_plot(norms: NormsByFrequency, groups: Sequence[WordGroupNorms]) -> Plot:
    """The mean and standard deviation of each bin of several tokens; a dot for each word."""
    bins = [
        {
            "count": math.exp(each.mean_log_count),
            "norm": each.mean_norm,
            "low": each.mean_norm - each.sd_norm,
            "high": each.mean_norm + each.sd_norm,
            "tokens": each.num_tokens,
        }
        for each in norms.bins
        if each.sd_norm is not None
    ]
    words = [
        {"count": word.count, "norm": word.norm, "word": word.word, "group": group.name}
        for group in groups
        for word in group.words
        if word.count
    ]
    frame = _Frame.around(bins, words)
    base = alt.Chart(data(bins)).encode(x=frame.x())
    tooltip = ["tokens:Q", alt.Tooltip("norm:Q", format=".4f")]
    layers = [
        base.mark_rule(color=GOOD, opacity=0.5).encode(y=frame.y("low"), y2="high:Q"),
        base.mark_line(color=GOOD).encode(y=frame.y("norm")),
        base.mark_point(color=GOOD, filled=True, size=60, opacity=1).encode(
            y=frame.y("norm"), tooltip=tooltip
        ),
    ]
    if words:
        layers += _words(words, bins, [group.name for group in groups], frame)
    rho = "none" if norms.spearman is None else f"{norms.spearman:+.2f}"
    title = f"Embedding norm against frequency: rho = {rho}"
    note = "blue: mean of a bin ± standard deviation; other dots: words"
    return Plot(
        "norms_by_frequency",
        title,
        alt.layer(*layers).properties(width=_WIDTH, height=_HEIGHT, title=titled(title, note)),
    )


@dataclass(frozen=True)
class _Frame:
    """The part of the plane that is shown, and where in the picture it lies."""

    counts: tuple[float, float]
    norms: tuple[float, float]

    @classmethod
    def around(cls, bins: Rows, words: Rows) -> "_Frame":
        """A frame with a margin around all that is drawn."""
        counts = [row["count"] for row in bins + words] or [1]
        norms = [row[key] for row in bins for key in ("low", "high")]
        norms += [row["norm"] for row in words]
        low, high = min(norms, default=0.0), max(norms, default=1.0)
        margin = 0.04 * (high - low) or 1.0
        return cls((min(counts) / 1.5, max(counts) * 1.5), (low - margin, high + margin))

    def x(self) -> alt.X:
        """The axis of counts."""
        return alt.X(
            "count:Q",
            title="times a token occurs",
            scale=alt.Scale(type="log", domain=self.counts, nice=False),
            axis=alt.Axis(format="~s", values=decades(*self.counts)),
        )

    def y(self, field: str) -> alt.Y:
        """The axis of norms."""
        scale = alt.Scale(domain=self.norms, nice=False, zero=False)
        return alt.Y(f"{field}:Q", title="embedding norm", scale=scale)

    def pixels(self, count: float, norm: float) -> tuple[float, float]:
        """Where a point is drawn."""
        low, high = map(math.log, self.counts)
        bottom, top = self.norms
        across = (math.log(count) - low) / (high - low)
        return _WIDTH * across, _HEIGHT * (norm - bottom) / (top - bottom)

    def at(self, x: float, y: float) -> dict[str, float]:
        """What is drawn at a place."""
        low, high = map(math.log, self.counts)
        bottom, top = self.norms
        return {
            "count": math.exp(low + x / _WIDTH * (high - low)),
            "norm": bottom + y / _HEIGHT * (top - bottom),
        }


def _words(words: Rows, bins: Rows, groups: Sequence[str], frame: _Frame) -> list[alt.Chart]:
    colour = alt.Color(
        "group:N",
        title=None,
        scale=alt.Scale(domain=list(groups), range=_GROUP_COLOURS[: len(groups)]),
        legend=alt.Legend(orient="bottom", columns=2),
    )
    middles = place_labels(
        [row["word"] for row in words],
        [frame.pixels(row["count"], row["norm"]) for row in words],
        [frame.pixels(row["count"], row["norm"]) for row in bins],
        _WIDTH,
    )
    labels = [row | frame.at(*middle) for row, middle in zip(words, middles, strict=True) if middle]
    tooltip = ["word:N", "count:Q", alt.Tooltip("norm:Q", format=".4f")]
    return [
        alt.Chart(data(words))
        .mark_circle(size=48, opacity=0.9)
        .encode(x=frame.x(), y=frame.y("norm"), color=colour, tooltip=tooltip),
        alt.Chart(data(labels))
        .mark_text(fontSize=9)
        .encode(x=frame.x(), y=frame.y("norm"), text="word:N"),
    ]

"""The share of tokens that occur at least so often, and the power law fitted to it."""

import altair as alt
import numpy as np

from hyplora.analysis.discrete_power_law import survival
from hyplora.analysis.power_law import PowerLawFit, Verdict
from jobs.analysis_report.plots.log_axis import decades
from jobs.analysis_report.report import CountHistogram
from jobs.plot import BEST, GOOD, Plot, data, titled

_WIDTH, _HEIGHT = 520, 330
_LINE_POINTS = 60
_MARGIN = 1.5
"""Of the axes around the points, as a factor."""
_CLAIMS = {
    Verdict.SUPPORTED: "a power law",
    Verdict.NOT_DISTINGUISHED: "a power law, or an alternative",
    Verdict.NOT_SUPPORTED: "no power law",
}


def token_frequency(histogram: CountHistogram, fit: PowerLawFit) -> Plot:
    """Points from the counts, the fit from x_min on."""
    number = np.asarray(histogram.num_tokens)
    shares = number[::-1].cumsum()[::-1] / number.sum()
    points = [
        {"count": count, "share": share, "what": "tokens of the data"}
        for count, share in zip(histogram.counts, shares.tolist(), strict=True)
    ]
    x = np.unique(np.geomspace(fit.x_min, histogram.counts[-1], _LINE_POINTS).round()).astype(int)
    of_fit = survival(x, fit.exponent, fit.x_min) * fit.num_tail / fit.num_values
    label = f"power law, exponent {fit.exponent:.2f}"
    # Only down to where half a token would be expected.
    line = [
        {"count": count, "share": share, "what": label}
        for count, share in zip(x.tolist(), of_fit.tolist(), strict=True)
        if share > 0.5 / fit.num_values
    ]
    colour = alt.Color(
        "what:N",
        title=None,
        scale=alt.Scale(domain=["tokens of the data", label], range=[GOOD, BEST]),
        legend=alt.Legend(orient="top-right"),
    )
    most, least = histogram.counts[-1], float(shares[-1])
    axes = {
        "x": alt.X(
            "count:Q",
            title="times a token occurs",
            scale=alt.Scale(type="log", nice=False, domain=(1 / _MARGIN, most * _MARGIN)),
            axis=alt.Axis(format="~s", values=decades(1, most)),
        ),
        "y": alt.Y(
            "share:Q",
            title="share of tokens that occur at least so often",
            scale=alt.Scale(type="log", nice=False, domain=(least / _MARGIN, _MARGIN)),
            axis=alt.Axis(format="~%", values=decades(least, 1)),
        ),
    }
    tooltip = ["count:Q", alt.Tooltip("share:Q", format=".3g")]
    title = f"Token frequency: {_CLAIMS[fit.verdict]}"
    return Plot(
        "token_frequency",
        title,
        alt.layer(
            alt.Chart(data(points))
            .mark_circle(size=22, opacity=0.6)
            .encode(color=colour, tooltip=tooltip, **axes),
            alt.Chart(data(line)).mark_line(strokeWidth=2).encode(color=colour, **axes),
        ).properties(
            width=_WIDTH,
            height=_HEIGHT,
            title=titled(
                title,
                f"fitted to counts from {fit.x_min} on, {fit.num_tail} of {fit.num_values} tokens; "
                f"goodness of fit p = {fit.goodness_p:.2f}",
            ),
        ),
    )

"""A plot that can be put into a paper as PNG, or opened in a browser without a network."""

from dataclasses import dataclass
from typing import Any

import altair as alt
import vl_convert

BEST, GOOD, QUIET, FAILED = "#D55E00", "#0072B2", "#B5B5B5", "#000000"
"""Colours of the best trial, of completed, early-stopped and failed ones (Okabe and Ito 2008)."""

SCALE = "viridis"
"""Colours of a number; even for readers who are colour-blind, and in grey."""

_PIXELS_A_POINT = 2.0
_FONT = "DejaVu Sans, Helvetica, Arial, sans-serif"

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Plot:
    """One plot of a report."""

    name: str
    """Stem of its files, such as "parallel_coordinates"."""

    title: str

    chart: Any
    """Altair chart."""

    def png(self) -> bytes:
        """The plot as an image on white."""
        return bytes(vl_convert.vegalite_to_png(self._spec(), scale=_PIXELS_A_POINT))

    def html(self) -> str:
        """The plot as one page that shows values under the pointer; its JavaScript is inside."""
        return str(vl_convert.vegalite_to_html(self._spec(), bundle=True, renderer="svg"))

    def _spec(self) -> dict[str, Any]:
        styled = (
            self.chart.properties(background="white", padding=14)
            .configure(font=_FONT)
            .configure_title(anchor="start", fontSize=15, subtitleColor="#555", offset=12)
            .configure_axis(labelFontSize=11, titleFontSize=12, gridColor="#eee", titlePadding=8)
            .configure_legend(labelFontSize=11, titleFontSize=12)
            .configure_header(labelFontSize=11, titleFontSize=12)
            .configure_view(strokeOpacity=0)
        )
        return dict(styled.to_dict())


def data(rows: Rows) -> alt.Data:
    """Rows as the data of a chart."""
    return alt.Data(values=rows)


def titled(text: str, *subtitle: str) -> alt.TitleParams:
    """A title with lines of explanation below it."""
    return alt.TitleParams(text=text, subtitle=list(subtitle))

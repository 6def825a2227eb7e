"""A report on analyses as one HTML page that needs no network."""

import base64
from collections.abc import Sequence
from html import escape
from itertools import repeat

from jobs.analysis_report.headline import about_subject
from jobs.analysis_report.report import AnalysisReport
from jobs.analysis_report.tables import Table, tables
from jobs.plot import Plot

_STYLE = """
body { font: 15px/1.5 "DejaVu Sans", Helvetica, Arial, sans-serif; margin: 2em auto;
       max-width: 62em; padding: 0 1em; color: #222; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 1.8em; }
table { border-collapse: collapse; font-size: 0.9em; }
td, th { padding: 0.25em 0.8em; border-bottom: 1px solid #ddd; text-align: left; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; height: auto; display: block; margin: 1em 0; }
.about { color: #666; }
"""


def to_html(report: AnalysisReport, plots: Sequence[Plot]) -> str:
    """Findings first, then plots, then the tables that they rest on.

    Plots are images inside the page; each plot's own page shows values under the pointer.
    """
    parts = [
        "<h1>Geometry of a model</h1>",
        f'<p class="about">{escape(about_subject(report))}</p>',
        "<h2>Findings</h2>",
        f"<ul>{''.join(f'<li>{escape(each)}</li>' for each in report.findings)}</ul>",
        *(_image(plot) for plot in plots),
        *(_table(table) for table in tables(report)),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>Geometry of {escape(report.base_model)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _image(plot: Plot) -> str:
    encoded = base64.b64encode(plot.png()).decode()
    return f'<img alt="{escape(plot.title)}" src="data:image/png;base64,{encoded}">'


def _table(table: Table) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(map(_cell, cells, kinds, repeat(tag))) + "</tr>"

    kinds = ["" if place < table.num_texts else "number" for place in range(len(table.head))]
    rows = "".join(line(row, "td") for row in table.rows)
    return f"<h2>{escape(table.title)}</h2><table>{line(table.head, 'th')}{rows}</table>"


def _cell(text: str, kind: str, tag: str) -> str:
    return f'<{tag} class="{kind}">{escape(text)}</{tag}>'

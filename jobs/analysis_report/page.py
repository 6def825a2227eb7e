"""A report on analyses as one HTML page that needs no network."""

import base64
from collections.abc import Sequence
from html import escape

from jobs.analysis_report.report import AnalysisReport
from jobs.search_report.plots.plot import Plot

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
    adapter = f"adapter {report.adapter}" if report.adapter else "no adapter"
    parts = [
        "<h1>Geometry of a model</h1>",
        f'<p class="about">{escape(report.base_model)}, {escape(adapter)}; '
        f"data: {escape(report.data)}</p>",
        "<h2>Findings</h2>",
        f"<ul>{''.join(f'<li>{escape(each)}</li>' for each in report.findings)}</ul>",
        *(_image(plot) for plot in plots),
        *_word_groups(report),
        *_layers(report),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>Geometry of {escape(report.base_model)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _image(plot: Plot) -> str:
    encoded = base64.b64encode(plot.png()).decode()
    return f'<img alt="{escape(plot.title)}" src="data:image/png;base64,{encoded}">'


def _word_groups(report: AnalysisReport) -> list[str]:
    if not report.word_groups:
        return []
    rows = [
        [
            group.name,
            ", ".join(word.word for word in group.words) or "–",
            ", ".join(group.split_words) or "–",
            _number(group.mean_norm),
            _number(group.sd_norm),
            _number(group.mean_count),
        ]
        for group in report.word_groups
    ]
    head = ["group", "words", "several tokens, left out", "mean norm", "sd", "mean count"]
    return ["<h2>Embedding norms of words</h2>", _table(head, rows, num_texts=3)]


def _layers(report: AnalysisReport) -> list[str]:
    if not report.adapter_effect:
        return []
    rows = [
        [
            layer.name,
            *map(
                _number,
                (
                    layer.geometry.curvature,
                    layer.geometry.mean_radius,
                    layer.gain.median,
                    layer.gain.p95,
                    layer.displacement.median,
                    layer.displacement.p95,
                    layer.geometry.cap_rate,
                ),
            ),
        ]
        for layer in report.adapter_effect.layers
    ]
    head = ["layer", "K", "mean radius", "gain, median", "gain, 95 %"]
    head += ["|Δy|/|y|, median", "95 %", "share capped"]
    return ["<h2>Layers</h2>", _table(head, rows, num_texts=1)]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], num_texts: int) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        classes = ["" if place < num_texts else ' class="number"' for place in range(len(cells))]
        pairs = zip(cells, classes, strict=True)
        return "<tr>" + "".join(f"<{tag}{c}>{escape(cell)}</{tag}>" for cell, c in pairs) + "</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"

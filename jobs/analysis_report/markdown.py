"""A report on analyses as a page in Markdown."""

from jobs.analysis_report.headline import about_subject
from jobs.analysis_report.report import AnalysisReport
from jobs.analysis_report.tables import Table, tables


def to_markdown(report: AnalysisReport) -> str:
    """Findings first, then the tables that they rest on; the plots are files beside it."""
    parts = [
        "# Geometry of a model",
        about_subject(report),
        "## Findings\n\n" + "\n".join(f"- {finding}" for finding in report.findings),
        *(f"## {table.title}\n\n{_lines(table)}" for table in tables(report)),
    ]
    return "\n\n".join(parts) + "\n"


def _lines(table: Table) -> str:
    marks = ["---" if place < table.num_texts else "---:" for place in range(len(table.head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (table.head, marks, *table.rows))

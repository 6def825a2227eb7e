"""The plots of a comparison."""

from jobs.compare_report.plots.forest import forest
from jobs.compare_report.plots.score_panels import score_panels
from jobs.compare_report.report import CompareReport
from jobs.plot import Plot


def plots(report: CompareReport) -> list[Plot]:
    """Scores by method, and each measure's differences from the reference where there are any."""
    found = [score_panels(report), forest(report, "score"), forest(report, "nll")]
    return [plot for plot in found if plot is not None]

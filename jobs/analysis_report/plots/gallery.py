"""The plots that a report has numbers for."""

from jobs.analysis_report.plots.curvature import curvature_by_layer, curvature_over_training
from jobs.analysis_report.plots.hyperbolicity import hyperbolicity_strips
from jobs.analysis_report.plots.layers import displacements, gains
from jobs.analysis_report.plots.norms import norms_by_frequency_plot
from jobs.analysis_report.plots.token_frequency import token_frequency
from jobs.analysis_report.report import AnalysisReport
from jobs.plot import Plot


def plots(report: AnalysisReport) -> list[Plot]:
    """Every plot that makes sense, in the order of the report."""
    found: list[Plot | None] = []
    if report.hyperbolicity:
        found.append(hyperbolicity_strips(report.hyperbolicity))
    if report.power_law and report.count_histogram:
        found.append(token_frequency(report.count_histogram, report.power_law))
    if report.norms:
        found.append(norms_by_frequency_plot(report.norms, report.word_groups))
    if report.adapter_effect:
        found += [gains(report.adapter_effect), displacements(report.adapter_effect)]
        found.append(curvature_by_layer(report.adapter_effect))
    found.append(curvature_over_training(report.curvatures))
    return [plot for plot in found if plot is not None]

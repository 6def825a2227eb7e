"""The numbers of a report on analyses that runs are compared by."""

from jobs.analysis_report.report import AnalysisReport


def figures(report: AnalysisReport) -> dict[str, float]:
    """MLflow metrics by name; what was not measured is missing."""
    found: dict[str, float | None] = {}
    if delta := report.hyperbolicity:
        found |= {
            "delta_relative_embeddings": delta.embeddings.mean_relative,
            "delta_relative_hidden": delta.hidden.mean_relative,
        }
        if delta.hidden_without_adapter and delta.adapter_effect:
            found |= {
                "delta_relative_hidden_without_adapter": delta.hidden_without_adapter.mean_relative,
                "delta_relative_change": delta.adapter_effect.mean,
            }
    if fit := report.power_law:
        found |= {
            "power_law_exponent": fit.exponent,
            "power_law_x_min": fit.x_min,
            "power_law_goodness_p": fit.goodness_p,
        }
    if report.norms:
        found["norm_frequency_spearman"] = report.norms.spearman
    if report.adapter_effect:
        layers = report.adapter_effect.layers
        found |= {
            "gain_largest_median": max(layer.gain.median for layer in layers),
            "displacement_largest_median": max(layer.displacement.median for layer in layers),
        }
    return {f"analysis/{name}": value for name, value in found.items() if value is not None}

"""What a report on analyses is of, and what it found, in one line each."""

from jobs.analysis_report.report import AnalysisReport
from jobs.analysis_report.sentences import mean_sd


def about_subject(report: AnalysisReport) -> str:
    """What was looked at."""
    adapter = f"adapter {report.adapter}" if report.adapter else "no adapter"
    prompts = f"; prompts: {report.prompts}" if report.prompts else ""
    return f"{report.base_model}, {adapter}; data: {report.data}{prompts}"


def headline(report: AnalysisReport) -> str:
    """The report in one line of at most 400 characters."""
    facts = []
    if found := report.hyperbolicity:
        facts.append(f"relative delta of embeddings {mean_sd(found.embeddings)}")
        without = found.hidden_without_adapter
        before = f"{mean_sd(without)}, with the adapter " if without else ""
        facts.append(f"of final hidden states {before}{mean_sd(found.hidden)}")
    if fit := report.power_law:
        facts.append(f"power law of token counts {fit.verdict} (exponent {fit.exponent:.2f})")
    if report.norms and report.norms.spearman is not None:
        facts.append(f"norm against frequency rho {report.norms.spearman:+.2f}")
    if effect := report.adapter_effect:
        furthest = max(layer.displacement.median for layer in effect.layers)
        facts.append(f"layers move their outputs by up to {100 * furthest:.2g} % (median token)")
    return "; ".join(facts)[:400] or f"left out: {', '.join(report.left_out)}"

"""The tables of a report on analyses, in words that a page and a text share."""

from dataclasses import dataclass

from hyplora.analysis.hyperbolicity import HyperbolicitySummary
from hyplora.analysis.prompt_hyperbolicity import PromptHyperbolicity
from jobs.analysis_report.report import AnalysisReport
from jobs.analysis_report.sentences import short_name

_NONE = "–"


@dataclass(frozen=True)
class Table:
    """Cells as they are shown."""

    title: str

    head: tuple[str, ...]

    rows: tuple[tuple[str, ...], ...]

    num_texts: int
    """Columns from the left that hold text; the others hold numbers."""


def tables(report: AnalysisReport) -> list[Table]:
    """Every table that the report has numbers for."""
    found = []
    if report.hyperbolicity:
        found.append(_hyperbolicity(report.hyperbolicity))
    if report.norms:
        found.append(_norms(report))
    if report.word_groups:
        found.append(_word_groups(report))
    if report.adapter_effect:
        found.append(_layers(report))
    return found


def _hyperbolicity(found: PromptHyperbolicity) -> Table:
    clouds: dict[str, HyperbolicitySummary | None] = {"token embeddings": found.embeddings}
    if found.hidden_without_adapter is None:
        clouds["final hidden states"] = found.hidden
    else:
        clouds["final hidden states, without adapter"] = found.hidden_without_adapter
        clouds["final hidden states, with adapter"] = found.hidden
    return Table(
        "Delta over prompts",
        ("points", "prompts", "relative δ, mean", "sd", "δ, mean", "sd"),
        tuple(
            (
                name,
                str(summary.num_clouds),
                _number(summary.mean_relative),
                _number(summary.sd_relative),
                _number(summary.mean_delta),
                _number(summary.sd_delta),
            )
            for name, summary in clouds.items()
            if summary
        ),
        num_texts=1,
    )


def _norms(report: AnalysisReport) -> Table:
    assert report.norms is not None
    rows = [
        (
            f"{each.lowest_count:,} to {each.highest_count:,}",
            f"{each.num_tokens:,}",
            _number(each.mean_norm),
            _number(each.sd_norm),
        )
        for each in report.norms.bins
    ]
    if report.norms.num_unseen:
        unseen = (f"{report.norms.num_unseen:,}", _number(report.norms.mean_norm_unseen), _NONE)
        rows.insert(0, ("0", *unseen))
    head = ("times a token occurs", "tokens", "mean norm", "sd")
    return Table("Embedding norms by frequency", head, tuple(rows), num_texts=1)


def _word_groups(report: AnalysisReport) -> Table:
    rows = (
        (
            group.name,
            ", ".join(word.word for word in group.words) or _NONE,
            ", ".join(group.split_words) or _NONE,
            _number(group.mean_norm),
            _number(group.sd_norm),
            _NONE if group.mean_count is None else f"{group.mean_count:,.0f}",
        )
        for group in report.word_groups
    )
    head = ("group", "words", "several tokens, left out", "mean norm", "sd", "mean count")
    return Table("Embedding norms of words", head, tuple(rows), num_texts=3)


def _layers(report: AnalysisReport) -> Table:
    assert report.adapter_effect is not None
    rows = (
        (
            short_name(layer.name),
            _number(layer.geometry.curvature),
            _number(layer.geometry.mean_radius),
            _number(layer.gain.median),
            _number(layer.gain.p95),
            _number(layer.displacement.median),
            _number(layer.displacement.p95),
            _number(layer.geometry.cap_rate),
        )
        for layer in report.adapter_effect.layers
    )
    of_gain = ("gain, median", "gain, 95 %")
    of_output = ("moved by, median", "moved by, 95 %")
    head = ("layer", "K", "mean radius", *of_gain, *of_output, "share capped")
    return Table("Layers", head, tuple(rows), num_texts=1)


def _number(value: float | None) -> str:
    return _NONE if value is None else f"{value:.4g}"

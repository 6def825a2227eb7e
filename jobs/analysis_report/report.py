"""What analyses of a model and its adapter found, as data."""

from collections.abc import Mapping, Sequence

from pydantic import Field

from hyplora.analysis.adapter_effect import AdapterEffect
from hyplora.analysis.power_law import PowerLawFit
from hyplora.analysis.prompt_hyperbolicity import PromptHyperbolicity
from hyplora.analysis.token_norms import NormsByFrequency
from hyplora.analysis.word_groups import WordGroupNorms
from jobs.analysis_report.sentences import (
    about_adapter,
    about_hyperbolicity,
    about_left_out,
    about_norms,
    about_power_law,
)
from workers.analysis_spec import AnalysisPart
from workers.document import Document


class CurvaturePoint(Document):
    """A learned curvature at a step of a training."""

    step: int
    """Optimizer steps done."""

    curvature: float
    """The paper's K, in units of the norm scale squared."""


class CountHistogram(Document):
    """How many tokens occur how often: what a plot of a frequency distribution needs."""

    counts: tuple[int, ...]
    """Distinct counts above 0, rising."""

    num_tokens: tuple[int, ...]
    """Tokens of the vocabulary with each count."""


class AnalysisReport(Document):
    """What analyses found; a part that was not asked for is None."""

    base_model: str
    """Reference of the base model."""

    adapter: str | None
    """What the adapter is called by; None if the base model alone was looked at."""

    data: str
    """What the prompts and counts are of."""

    prompts: str | None = None
    """Which rows' questions were sent through the model."""

    hyperbolicity: PromptHyperbolicity | None = None
    """Delta of embeddings and final hidden states."""

    power_law: PowerLawFit | None = None
    """Whether token counts follow a power law."""

    count_histogram: CountHistogram | None = None
    """The counts that it was fitted to."""

    norms: NormsByFrequency | None = None
    """Embedding norms against frequency."""

    word_groups: tuple[WordGroupNorms, ...] = ()
    """Norms of words from general to specific."""

    adapter_effect: AdapterEffect | None = None
    """Gains and displacements by layer."""

    curvatures: dict[str, tuple[CurvaturePoint, ...]] = Field({})
    """Learned curvatures over the training, by the name of the series."""

    left_out: dict[str, str] = Field({})
    """Parts that were asked for and could not be measured, each with its reason."""

    findings: tuple[str, ...] = ()
    """The above in sentences."""

    def has(self, part: AnalysisPart) -> bool:
        """Whether a part has been measured, or tried."""
        return bool(getattr(self, part)) or part in self.left_out


def with_findings(report: AnalysisReport) -> AnalysisReport:
    """Say in sentences what the numbers of a report are."""
    findings: list[str] = []
    if report.hyperbolicity:
        findings += about_hyperbolicity(report.hyperbolicity)
    if report.power_law:
        findings += about_power_law(report.power_law)
    if report.norms:
        findings += about_norms(report.norms)
    if report.adapter_effect:
        findings += about_adapter(report.adapter_effect)
    findings += about_left_out(report.left_out)
    return report.model_copy(update={"findings": tuple(findings)})


def count_histogram(counts: Sequence[int]) -> CountHistogram:
    """Condense token counts; zeros are left out."""
    tally: dict[int, int] = {}
    for count in counts:
        if count > 0:
            tally[count] = tally.get(count, 0) + 1
    rising = sorted(tally)
    return CountHistogram(counts=tuple(rising), num_tokens=tuple(tally[count] for count in rising))


def curvature_series(
    histories: Mapping[str, Sequence[tuple[int, float]]],
) -> dict[str, tuple[CurvaturePoint, ...]]:
    """Take over metric histories, as (step, K) pairs by the name of the series."""
    return {
        name: tuple(CurvaturePoint(step=step, curvature=value) for step, value in sorted(history))
        for name, history in histories.items()
    }

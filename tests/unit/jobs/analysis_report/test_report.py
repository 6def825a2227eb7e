"""The report on analyses: JSON, sentences, plots and a page from the numbers of a tiny model."""

import numpy as np
import pytest
import torch
from peft import get_peft_model

from hyplora import HypLoraConfig
from hyplora.analysis.adapter_effect import measure_adapter
from hyplora.analysis.discrete_power_law import draw
from hyplora.analysis.power_law import fit_power_law
from hyplora.analysis.prompt_hyperbolicity import measure_prompts
from hyplora.analysis.token_norms import norms_by_frequency
from jobs.analysis_report.figures import figures
from jobs.analysis_report.headline import headline
from jobs.analysis_report.markdown import to_markdown
from jobs.analysis_report.page import to_html
from jobs.analysis_report.plots.curvature import curvature_over_training
from jobs.analysis_report.plots.gallery import plots
from jobs.analysis_report.report import (
    AnalysisReport,
    count_histogram,
    curvature_series,
    with_findings,
)
from tests.unit.hyplora.analysis.families import make_tiny

PROMPTS = [[1, 5, 9, 12, 13], [1, 40, 41, 7]]


@pytest.fixture(scope="module")
def report() -> AnalysisReport:
    config = HypLoraConfig(r=4, init_weights=False, target_modules=["q_proj", "v_proj"])
    model = get_peft_model(make_tiny("llama"), config).eval()
    counts = torch.from_numpy(draw(1.9, 1, 2000, np.random.default_rng(0)))
    empty = AnalysisReport(
        base_model="tiny <b>",
        adapter="one",
        data="drawn",
        hyperbolicity=measure_prompts(model, PROMPTS),
        power_law=fit_power_law(counts, num_resamples=10),
        count_histogram=count_histogram(counts.tolist()),
        norms=norms_by_frequency(torch.rand(2000), counts),
        adapter_effect=measure_adapter(model, PROMPTS),
        curvatures=curvature_series({"all layers": [(2, 0.9), (1, 1.0)]}),
    )
    return with_findings(empty)


def test_a_report_is_the_same_after_json(report: AnalysisReport) -> None:
    assert AnalysisReport.model_validate_json(report.model_dump_json()) == report


def test_every_part_has_a_finding_and_a_plot(report: AnalysisReport) -> None:
    text = " ".join(report.findings)
    assert all(each in text for each in ("Relative delta", "power law", "rho", "adapted layers"))
    assert [plot.name for plot in plots(report)] == [
        "hyperbolicity",
        "token_frequency",
        "norms_by_frequency",
        "gain",
        "displacement",
        "curvature_over_training",
    ]


def test_every_plot_is_an_image_and_a_page(report: AnalysisReport) -> None:
    for plot in plots(report):
        assert plot.png().startswith(b"\x89PNG")
        assert "<html" in plot.html().lower()


def test_the_page_needs_no_network_and_escapes_names(report: AnalysisReport) -> None:
    page = to_html(report, plots(report))
    assert "tiny &lt;b&gt;" in page
    assert "http" not in page
    assert page.count("data:image/png") == 6


def test_the_markdown_has_the_findings_and_every_table(report: AnalysisReport) -> None:
    text = to_markdown(report)
    assert all(f"- {finding}" in text for finding in report.findings)
    assert text.count("| --- |") == 3
    assert "| model.layers.0.self_attn.q_proj |" in text


def test_metrics_and_headline_say_what_was_measured(report: AnalysisReport) -> None:
    assert report.hyperbolicity is not None
    assert report.hyperbolicity.adapter_effect is not None
    found = figures(report)
    assert found["analysis/delta_relative_change"] == report.hyperbolicity.adapter_effect.mean
    assert {"analysis/power_law_exponent", "analysis/norm_frequency_spearman"} <= set(found)
    assert "with the adapter" in headline(report)
    assert len(headline(report)) <= 400


def test_a_part_that_could_not_be_measured_is_named_with_its_reason(
    report: AnalysisReport,
) -> None:
    lacking = report.model_copy(
        update={"adapter_effect": None, "left_out": {"adapter_effect": "the adapter is LORA"}}
    )
    assert lacking.has("adapter_effect")
    assert with_findings(lacking).findings[-1] == (
        "Adapter effect is left out: the adapter is LORA."
    )
    assert figures(lacking).keys() < figures(report).keys()


def test_many_layers_are_drawn_as_their_mean(report: AnalysisReport) -> None:
    names = [f"model.layers.{block}.{kind}" for block in range(9) for kind in ("q", "v")]
    histories = {name: [(1, 1.0), (2, 0.5 + 0.1 * place)] for place, name in enumerate(names)}
    plot = curvature_over_training(curvature_series(histories))
    assert plot is not None
    rows = plot.chart.to_dict()["data"]["values"]
    assert [(row["kind"], row["step"]) for row in rows] == [("q", 1), ("q", 2), ("v", 1), ("v", 2)]
    assert rows[1]["curvature"] == pytest.approx(1.3)
    assert (rows[1]["low"], rows[1]["high"]) == pytest.approx((0.5, 2.1))


def test_nothing_asked_for_is_an_empty_report() -> None:
    empty = with_findings(AnalysisReport(base_model="tiny", adapter=None, data="none"))
    assert empty.findings == ()
    assert plots(empty) == []
    assert figures(empty) == {}

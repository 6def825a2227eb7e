"""Plots of a comparison: what is drawn is what the report holds."""

import io
from typing import Any

import pytest
from PIL import Image

from jobs.compare_report.plots.gallery import plots
from jobs.compare_report.report import CompareReport, build_report
from jobs.plot import Plot
from tests.unit.jobs.compare_report.runs import comparison, results


@pytest.fixture(scope="module")
def report() -> CompareReport:
    return build_report(comparison(), results(effects={"hyplora": 0.5}))


@pytest.fixture(scope="module")
def gallery(report: CompareReport) -> dict[str, Plot]:
    return {plot.name: plot for plot in plots(report)}


def rows(part: object) -> list[dict[str, Any]]:
    if isinstance(part, list):
        return [row for each in part for row in rows(each)]
    if not isinstance(part, dict):
        return []
    own = list(part.get("values", [])) if "values" in part else []
    found = [row for row in own if isinstance(row, dict)]
    return found + [row for each in part.values() if each is not own for row in rows(each)]


def test_a_comparison_has_scores_and_differences_by_both_measures(
    gallery: dict[str, Plot],
) -> None:
    assert list(gallery) == ["scores", "differences_score", "differences_nll"]


def test_every_plot_is_an_image_and_a_page(gallery: dict[str, Plot]) -> None:
    for plot in gallery.values():
        image = Image.open(io.BytesIO(plot.png()))
        assert image.format == "PNG"
        assert 800 < image.width < 2400
        assert plot.title in plot.html()


def test_differences_are_drawn_in_points_with_their_verdict(
    gallery: dict[str, Plot], report: CompareReport
) -> None:
    drawn = rows(gallery["differences_score"].chart.to_dict())
    for each in report.differences:
        if each.measure == "score":
            assert any(
                row.get("estimate") == 100 * each.estimate and row["verdict"] == each.verdict
                for row in drawn
            )


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_one_or_two_seeds_have_plots_too(num_seeds: int) -> None:
    made = build_report(comparison(), results(num_seeds=num_seeds))
    for plot in plots(made):
        assert Image.open(io.BytesIO(plot.png())).width > 800


def test_a_plot_of_one_seed_says_that_it_is_of_adapters() -> None:
    for num_seeds, is_said in ((1, True), (3, False)):
        made = build_report(comparison(), results(num_seeds=num_seeds))
        _, of_score, _ = plots(made)
        subtitle = " ".join(of_score.chart.to_dict()["title"]["subtitle"])
        assert ("adapters and not of their methods" in subtitle) == is_said


def test_without_the_reference_only_scores_are_drawn() -> None:
    rest = [result for result in results() if result.method != "lora"]
    assert [plot.name for plot in plots(build_report(comparison(), rest))] == ["scores"]

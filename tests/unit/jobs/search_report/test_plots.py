"""Plots of a search: all of those, and only those, that its trials can fill."""

import dataclasses
import io
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from PIL import Image

from jobs.plot import Plot
from jobs.search_report.importance import importance
from jobs.search_report.plots.cells import cells
from jobs.search_report.plots.field_axis import field_axis
from jobs.search_report.plots.gallery import plots
from jobs.search_report.plots.learning_curves import learning_curves
from jobs.search_report.plots.parallel_coordinates import parallel_coordinates
from jobs.search_report.plots.pareto_front import pareto_front
from jobs.search_report.trial_table import TrialRecord, pareto_set, rank
from jobs.search_space import Value
from jobs.search_specs import SearchSpec
from tests.unit.jobs.search_report.trials import (
    CURVATURE,
    LEARNED,
    LOSS,
    RANK,
    SIZE,
    search,
    trials,
)

TWO = search(objectives=[{"metric": LOSS}, {"metric": SIZE}])


def gallery(spec: SearchSpec, some: list[TrialRecord]) -> dict[str, Plot]:
    known = [importance(some, list(spec.space), objective) for objective in spec.objectives]
    return {plot.name: plot for plot in plots(spec, some, known)}


def rows(plot: Plot) -> list[dict[str, Any]]:
    sets = _inline(plot.chart.to_dict())
    return [row for rows_ in sets for row in rows_]


def _inline(part: object) -> list[list[dict[str, Any]]]:
    if isinstance(part, list):
        return [found for each in part for found in _inline(each)]
    if not isinstance(part, dict):
        return []
    own = [part["data"]["values"]] if "values" in part.get("data", {}) else []
    own += [list(each) for each in part.get("datasets", {}).values()]
    return own + [found for each in part.values() for found in _inline(each)]


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]


@pytest.fixture(scope="module")
def full() -> dict[str, Plot]:
    return gallery(TWO, trials(40, stopped_part=0.2, failed_part=0.1))


def test_a_search_of_two_objectives_has_every_plot(full: dict[str, Plot]) -> None:
    assert list(full) == [
        "parallel_coordinates",
        "heat_map_curvature_r",
        "panels_curvature_r",
        "curves_eval_loss",
        "importance",
        "pareto_front_1",
    ]


def test_every_plot_is_an_image_of_a_size_for_print(full: dict[str, Plot]) -> None:
    for plot in full.values():
        image = Image.open(io.BytesIO(plot.png()))
        assert image.format == "PNG"
        assert 800 < image.width < 2400
        assert 400 < image.height < 1600
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > 20


def test_every_page_is_whole_without_a_network(full: dict[str, Plot]) -> None:
    for plot in full.values():
        page = plot.html()
        links = Links()
        links.feed(page)
        assert links.found == []
        assert not re.search(r"(?:import|importScripts)\s*\(?\s*[\"']https?://", page)
        assert "cdn.jsdelivr.net" not in page.split("</script>")[-1]
        assert plot.title in page


@pytest.mark.parametrize("number", [3, 200])
def test_few_and_many_trials_have_images(number: int) -> None:
    aim = search().objectives[0]
    some = trials(number)
    axes = {field: field_axis(field, values) for field, values in search().space.items()}
    for plot in (parallel_coordinates(some, axes, aim), learning_curves(some, aim, LOSS)):
        assert plot is not None
        assert Image.open(io.BytesIO(plot.png())).width > 800


def test_with_one_completed_trial_only_its_curves_are_left() -> None:
    assert list(gallery(TWO, trials(1))) == ["curves_eval_loss"]


def test_no_trials_have_no_plots() -> None:
    assert gallery(TWO, []) == {}


def test_all_trials_failed_and_still_their_curves_can_be_seen() -> None:
    assert list(gallery(TWO, trials(10, failed_part=1.0))) == ["curves_eval_loss"]
    aimless = [dataclasses.replace(trial, curves={}) for trial in trials(10, failed_part=1.0)]
    assert gallery(TWO, aimless) == {}


def test_a_field_with_one_value_is_no_axis() -> None:
    fixed = [
        dataclasses.replace(trial, values=dict(trial.values) | {RANK: 8}) for trial in trials(10)
    ]
    found = gallery(search(), fixed)
    drawn = {row["label"] for row in rows(found["parallel_coordinates"]) if "label" in row}
    assert "rank r" not in drawn
    assert "learning rate" in drawn
    assert "heat_map_curvature_r" not in found


def test_parallel_coordinates_draw_unfinished_trials_without_an_objective() -> None:
    some = trials(40, stopped_part=0.3, failed_part=0.2)
    drawn = rows(gallery(search(), some)["parallel_coordinates"])
    points = {(row["trial"], row["axis"]) for row in drawn if "trial" in row}
    for trial in some:
        assert (trial.trial_id, 0) in points
        assert ((trial.trial_id, 4) in points) == (trial.state == "completed")


def test_the_best_trial_is_the_one_in_front_of_the_curves() -> None:
    some = trials(20, stopped_part=0.3)
    best = rank(some, search().objectives)[0].trial_id
    drawn = rows(gallery(search(), some)["curves_eval_loss"])
    assert {row["trial"] for row in drawn if row.get("role") == "best"} == {best}
    assert {row["role"] for row in drawn} == {"best", "completed", "ended early"}


def test_a_cell_holds_mean_and_standard_error_of_its_trials() -> None:
    space = search().space
    base = trials(1)[0]
    some = [
        dataclasses.replace(
            base,
            trial_id=str(i),
            values=dict(base.values) | {CURVATURE: curvature, RANK: 8},
            objectives={LOSS: loss},
            errors={LOSS: 0.25},
        )
        for i, (curvature, loss) in enumerate([(0.11, 1.0), (0.15, 3.0), (90.0, 5.0)])
    ]
    low, high = cells(
        some, field_axis(CURVATURE, space[CURVATURE]), field_axis(RANK, space[RANK]), LOSS
    )
    assert (low.num_trials, low.mean, low.error) == (2, 2.0, 1.0)
    assert (high.num_trials, high.mean, high.error) == (1, 5.0, 0.25)
    assert (low.across.index, high.across.index) == (0, 4)


def test_a_range_by_orders_of_magnitude_is_cut_into_bins_of_equal_ratio() -> None:
    axis = field_axis(CURVATURE, search().space[CURVATURE])
    assert [axis.bin_of(value).index for value in (0.1, 0.39, 0.41, 3.0, 99.0, 100.0)] == [
        0, 0, 1, 2, 4, 4,
    ]  # fmt: skip
    assert axis.position(10**0.5) == pytest.approx(0.5)
    assert [label for _, label in axis.ticks()] == ["0.1", "1", "10", "100"]


def test_numbers_to_choose_from_rise_whatever_their_order_and_true_follows_false() -> None:
    space = search({RANK: {"choice": [32, 4, 128]}, LEARNED: {"choice": [False, True]}}).space
    assert [label for _, label in field_axis(RANK, space[RANK]).ticks()] == ["4", "32", "128"]
    assert field_axis(LEARNED, space[LEARNED]).position(True) == 1.0


def test_choices_that_would_look_the_same_keep_bins_of_their_own() -> None:
    axis = field_axis(
        CURVATURE, search({CURVATURE: {"choice": [1.0001, 1.0002, 3]}}).space[CURVATURE]
    )
    bins = [axis.bin_of(value) for value in (1.0001, 1.0002, 3.0)]
    assert [each.index for each in bins] == [0, 1, 2]
    assert len({each.label for each in bins}) == 3


def test_a_space_of_categories_and_a_score_to_raise_have_plots() -> None:
    names: list[Value] = [["q_proj"], ["q_proj", "v_proj"], "all-linear"]
    space = {
        "adapter.target_modules": {"choice": names},
        "adapter.curvature_gradient_bound": {"choice": [None, 0.01]},
    }
    spec = search(space, objectives=[{"metric": LOSS, "mode": "max"}])
    some = [
        dataclasses.replace(
            trial,
            values={
                "adapter.target_modules": names[i % 3],
                "adapter.curvature_gradient_bound": (None, 0.01)[i % 2],
            },
        )
        for i, trial in enumerate(trials(18))
    ]
    found = gallery(spec, some)
    assert {"parallel_coordinates", "importance"} <= found.keys()
    assert any(name.startswith("heat_map_") for name in found)
    assert all(plot.png() for plot in found.values())


def test_the_pareto_front_is_marked() -> None:
    some = trials(20)
    loss, size = TWO.objectives
    plot = pareto_front(some, size, loss)
    assert plot is not None
    marked = {row["trial"] for row in rows(plot) if row["front"]}
    assert marked == {trial.trial_id for trial in pareto_set(some, [size, loss])}


def test_a_diverged_trial_does_not_flatten_the_axes_of_the_others() -> None:
    some = trials(30)
    some[3] = dataclasses.replace(some[3], objectives={LOSS: 1e9, SIZE: 4e6})
    drawn = rows(gallery(search(), some)["parallel_coordinates"])
    positions = [row["position"] for row in drawn if row.get("axis") == 4 and "trial" in row]
    assert sum(position > 0.2 for position in positions) > 10

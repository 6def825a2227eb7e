"""What a report says of a search, and what it does not claim."""

import pytest

from jobs.search_report.markdown import to_markdown
from jobs.search_report.report import SearchReport, build_report
from jobs.tickets import TrialState
from tests.unit.jobs.search_report.trials import LEARNED, LOSS, SIZE, SPACE, search, trials


@pytest.fixture(scope="module")
def report() -> SearchReport:
    spec = search(objectives=[{"metric": LOSS}, {"metric": SIZE}])
    return build_report(spec, trials(40, stopped_part=0.2, failed_part=0.1), 1234.0)


def test_a_report_travels_as_json(report: SearchReport) -> None:
    assert SearchReport.model_validate_json(report.model_dump_json()) == report


def test_the_best_trial_stands_beside_the_median_one(report: SearchReport) -> None:
    assert report.best[0].objectives[LOSS] < report.medians[LOSS]
    assert report.best[0].trial_id in report.findings[0]
    assert f"{report.medians[LOSS]:.4g}" in report.findings[0]


def test_trials_are_counted_by_state_whatever_became_of_them(report: SearchReport) -> None:
    assert sum(report.num_trials.values()) == 40
    assert report.num_trials[TrialState.FAILED] > 0


def test_curvature_is_weighed_against_learning_rate_and_rank(report: SearchReport) -> None:
    text = " ".join(report.findings)
    assert "adapter.curvature matters less than training.learning_rate for eval/loss" in text
    assert "adapter.curvature" in text
    assert "90 % interval" in text


def test_fixed_and_learned_curvature_show_no_difference_where_there_is_none(
    report: SearchReport,
) -> None:
    assert any(
        finding.startswith(f"{LEARNED}: no difference shown in {LOSS}")
        for finding in report.findings
    )


@pytest.mark.parametrize(("sign", "better"), [(-1, "true"), (1, "false")])
def test_a_difference_that_is_shown_names_the_better_value(sign: int, better: str) -> None:
    some = trials(30, lambda values: 1.0 + sign * 0.5 * bool(values[LEARNED]), noise=0.02)
    findings = build_report(search(), some, 1.0).findings
    assert any(f"{LOSS} is better with {better} than" in finding for finding in findings)


def test_a_pareto_set_is_given_with_several_objectives_only(report: SearchReport) -> None:
    assert {result.trial_id for result in report.pareto} >= {report.best[0].trial_id}
    assert build_report(search(), trials(3), 1.0).pareto == ()


def test_without_learned_curvature_in_the_space_nothing_is_compared() -> None:
    space = {field: values for field, values in SPACE.items() if field != LEARNED}
    assert build_report(search(space), trials(3), 1.0).comparisons == ()


@pytest.mark.parametrize("failed_part", [0.0, 1.0])
@pytest.mark.parametrize("number", [0, 1, 5])
def test_few_trials_and_none_make_a_report_that_says_so(number: int, failed_part: float) -> None:
    found = build_report(search(), trials(number, failed_part=failed_part), 1.0)
    page = to_markdown(found)
    assert "too few" in page
    assert ("No trial has completed" in page) == (number == 0 or failed_part == 1.0)


def test_the_page_holds_every_finding_and_a_row_for_each_best_trial(report: SearchReport) -> None:
    page = to_markdown(report)
    assert all(f"- {finding}" in page for finding in report.findings)
    assert all(f"| {result.trial_id} |" in page for result in report.best)

"""What a report says of methods, and what it does not claim."""

import dataclasses
import re

import pytest

from jobs.compare_report.comparison import MethodDifference, Verdict, compare
from jobs.compare_report.markdown import to_markdown
from jobs.compare_report.method_results import DifferentQuestionsError, MethodResult
from jobs.compare_report.report import CompareReport, build_report
from jobs.compare_report.seeds_mean import seeds_mean
from tests.unit.jobs.compare_report.runs import comparison, results, scores


@pytest.fixture(scope="module")
def report() -> CompareReport:
    return build_report(comparison(), results(effects={"hyplora": 0.5}))


def find(report: CompareReport, method: str, task: str | None, measure: str) -> MethodDifference:
    (found,) = [
        each
        for each in report.differences
        if (each.method, each.task, each.measure) == (method, task, measure)
    ]
    return found


def replace_task(result: MethodResult, task: str, **changes: object) -> MethodResult:
    runs = tuple(
        dataclasses.replace(
            run, tasks=dict(run.tasks) | {task: dataclasses.replace(run.tasks[task], **changes)}
        )
        for run in result.runs
    )
    return dataclasses.replace(result, runs=runs)


def test_the_mean_over_seeds_has_students_interval() -> None:
    mean = seeds_mean([0.70, 0.72, 0.74])
    assert mean.value == pytest.approx(0.72)
    assert mean.half_width == pytest.approx(4.302653 * 0.02 / 3**0.5)
    assert seeds_mean([0.7]).half_width is None
    assert seeds_mean([0.70, 0.72]).half_width == pytest.approx(12.7062 * 0.01)


def test_a_report_travels_as_json(report: CompareReport) -> None:
    assert CompareReport.model_validate_json(report.model_dump_json()) == report


def test_a_large_difference_is_shown_on_every_task_and_by_both_measures(
    report: CompareReport,
) -> None:
    for task in ("gsm8k", "svamp", None):
        for measure in ("score", "nll"):
            assert find(report, "hyplora", task, measure).verdict is Verdict.BETTER
            assert find(report, "base", task, measure).verdict is Verdict.WORSE


def test_methods_that_are_alike_show_no_difference_and_what_could_have_been(
    report: CompareReport,
) -> None:
    found = find(report, "dora", "gsm8k", "score")
    assert found.verdict is Verdict.NOT_SHOWN
    assert found.low < 0 < found.high
    assert found.detectable is not None
    assert found.detectable > abs(found.estimate)
    page = to_markdown(report)
    assert "dora and lora: no difference shown on gsm8k" in page
    assert "would have been shown in four cases of five" in page


def test_where_nothing_is_shown_the_report_begins_with_that() -> None:
    alike = build_report(comparison(), results(effects={"base": 0.0}, seed=4))
    assert alike.findings[0].startswith("On no task does any method show a difference from lora")
    assert "**" not in to_markdown(alike).partition("## Negative")[0].partition("Accuracy in")[0]


def test_luck_of_seeds_alone_is_no_difference_though_rows_would_show_one() -> None:
    found = compare(results(seed_luck=0.6, seed=2), "lora")
    by_rows = [each.p_rows < 0.01 for each in found if each.method in ("dora", "hyplora")]
    assert any(by_rows)
    assert all(
        each.verdict is Verdict.NOT_SHOWN for each in found if each.method in ("dora", "hyplora")
    )


def test_with_one_seed_it_speaks_of_adapters_and_marks_nothing() -> None:
    single = build_report(comparison(), results(effects={"hyplora": 1.0}, num_seeds=1))
    found = find(single, "hyplora", "gsm8k", "score")
    assert (found.holds_for, found.p_seeds, found.verdict) == ("adapters", None, Verdict.BETTER)
    assert found.p_rows == pytest.approx(found.seed_tests[0].p_value)
    assert any("nothing is known of others" in finding for finding in single.findings)
    page = to_markdown(single)
    assert "the adapter of hyplora is better than that of lora on gsm8k" in page
    assert "▲" not in page.partition("Accuracy in")[0]


def test_with_two_seeds_the_report_says_how_little_that_is() -> None:
    two = build_report(comparison(), results(num_seeds=2))
    assert any("fewer than 3 seeds (lora 2, dora 2" in finding for finding in two.findings)


def test_so_few_questions_could_have_shown_nothing() -> None:
    few = build_report(comparison(), results(rows={"gsm8k": 4, "svamp": 5}))
    found = find(few, "dora", "gsm8k", "score")
    assert found.detectable is None
    assert "could have shown none, however large" in to_markdown(few)


def test_mcnemars_test_is_given_for_each_seed(report: CompareReport) -> None:
    found = find(report, "hyplora", "gsm8k", "score")
    assert [test.seed for test in found.seed_tests] == [0, 1, 2]
    net = sum(test.num_only_method - test.num_only_reference for test in found.seed_tests)
    assert net / (3 * 400) == pytest.approx(found.estimate)
    assert find(report, "hyplora", None, "score").seed_tests == ()


def test_partial_scores_are_compared_by_drawn_signs() -> None:
    halves = [
        replace_task(result, "gsm8k", scores=(0.5,) * 200 + (0.25,) * 200, metric="f1")
        for result in results()
    ]
    made = build_report(comparison(), halves)
    found = find(made, "dora", "gsm8k", "score")
    assert (found.estimate, found.p_rows, found.seed_tests) == (0, 1, ())
    assert "Accuracy or F1 in %" in to_markdown(made)


def test_the_families_are_corrected_by_their_own_number(report: CompareReport) -> None:
    for measure in ("score", "nll"):
        for is_average, number in ((False, 6), (True, 3)):
            family = [
                each
                for each in report.differences
                if each.measure == measure and (each.task is None) == is_average
            ]
            raw = [max(each.p_rows, each.p_seeds or 0) for each in family]
            assert len(family) == number
            first = min(range(number), key=raw.__getitem__)
            assert family[first].p_adjusted == pytest.approx(min(1, number * raw[first]))


def test_a_swapped_reference_turns_every_sign(report: CompareReport) -> None:
    back = build_report(comparison(reference="hyplora"), results(effects={"hyplora": 0.5}))
    for task in ("gsm8k", "svamp", None):
        there, here = find(back, "lora", task, "score"), find(report, "hyplora", task, "score")
        assert there.estimate == pytest.approx(-here.estimate)
        assert (there.low, there.high) == pytest.approx((-here.high, -here.low))
        assert there.p_rows == pytest.approx(here.p_rows)
        assert there.verdict is Verdict.WORSE


def test_ranks_by_score_and_by_likelihood_stand_beside_each_other(report: CompareReport) -> None:
    ranks = {each.method: (each.rank_by_score, each.rank_by_nll) for each in report.methods}
    assert ranks["hyplora"] == (1, 1)
    assert ranks["base"] == (4, 4)


def test_a_rate_at_the_edge_of_those_tried_is_told() -> None:
    some = results()
    some[1] = dataclasses.replace(some[1], learning_rate=1e-3)
    findings = build_report(comparison(), some).findings
    edge = [finding for finding in findings if "at the edge of those tried" in finding]
    assert len(edge) == 1
    assert "learning rate of lora, 0.001" in edge[0]


def test_more_parameters_than_the_reference_are_told() -> None:
    some = results()
    some[3] = dataclasses.replace(some[3], num_trainable_parameters=1_500_000)
    findings = build_report(comparison(), some).findings
    assert any("times those of lora: hyplora 1.50" in finding for finding in findings)


def test_the_table_has_a_row_for_each_method_and_a_column_for_each_task(
    report: CompareReport,
) -> None:
    page = to_markdown(report)
    heads = "| method | gsm8k | svamp | average | parameters | minutes | memory |"
    assert heads in page
    table = page.partition(heads)[2].partition("\n\n")[0]
    assert len(re.findall(r"^\| (?:base|lora|dora|hyplora) \|", table, re.MULTILINE)) == 4
    assert re.search(r"\| hyplora \| \*\*[\d.]+ ± [\d.]+ ▲\*\* \|.* 3\.00 GiB \|", table)
    assert all(f"- {finding}" in page for finding in report.findings)


def test_a_single_task_has_no_average() -> None:
    one = build_report(
        comparison(tasks=[{"benchmark": "gsm8k", "data": "file-1111111111111111"}]),
        results(rows={"gsm8k": 50}),
    )
    assert "average |" not in to_markdown(one)
    assert {each.task for each in one.differences} == {"gsm8k"}


def test_without_likelihoods_only_answers_are_compared() -> None:
    bare = results()
    for task in ("gsm8k", "svamp"):
        bare = [replace_task(result, task, nlls=()) for result in bare]
    made = build_report(comparison(), bare)
    assert {each.measure for each in made.differences} == {"score"}
    assert "Negative log-likelihood of the gold" not in to_markdown(made)


def test_methods_without_a_result_are_named_and_the_rest_is_compared() -> None:
    rest = [result for result in results() if result.method != "dora"]
    made = build_report(comparison(), rest, {"dora": "it ran out of memory"})
    assert "dora has no result: it ran out of memory." in made.findings
    assert {each.method for each in made.differences} == {"base", "hyplora"}


def test_without_the_reference_nothing_is_compared() -> None:
    rest = [result for result in results() if result.method != "lora"]
    made = build_report(comparison(), rest, {"lora": "it diverged"})
    assert made.differences == ()
    assert made.findings[0].startswith("Nothing is compared")
    assert "## Scores" in to_markdown(made)


def test_answers_to_other_questions_are_refused() -> None:
    some = results()
    some[2] = replace_task(some[2], "gsm8k", question_digest="other")
    with pytest.raises(DifferentQuestionsError, match="dora, seed 0, gsm8k"):
        build_report(comparison(), some)
    some = results()
    run = dataclasses.replace(some[2].runs[0], tasks={"gsm8k": scores([1, 0])})
    some[2] = dataclasses.replace(some[2], runs=(run,))
    with pytest.raises(DifferentQuestionsError, match="ask all of all"):
        build_report(comparison(), some)


@pytest.mark.parametrize("runs", [(), "twice"])
def test_a_method_needs_one_run_of_each_seed(runs: object) -> None:
    some = results()
    given = () if runs == () else (some[2].runs[0], some[2].runs[0])
    some[2] = dataclasses.replace(some[2], runs=given)
    with pytest.raises(ValueError, match="dora: give one run for each seed"):
        build_report(comparison(), some)


def test_a_number_that_is_not_finite_is_refused() -> None:
    some = results()
    some[2] = replace_task(some[2], "gsm8k", nlls=(float("nan"),) * 400)
    with pytest.raises(ValueError, match="is not finite"):
        build_report(comparison(), some)

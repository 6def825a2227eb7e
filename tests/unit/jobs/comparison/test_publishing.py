"""What a comparison's run says in metrics and in one line."""

from jobs.compare_report.report import build_report
from jobs.comparison.publishing import means, summary
from tests.unit.jobs.compare_report.runs import comparison, results


def test_the_summary_says_of_every_method_what_each_task_shows() -> None:
    report = build_report(comparison(), results(effects={"hyplora": 1.5}))
    line = summary(report)
    assert "dora: no difference shown from lora on gsm8k, svamp" in line
    assert "hyplora: better than lora on gsm8k, svamp" in line
    assert "lora:" not in line.replace("hyplora:", "")
    assert len(line) <= 400


def test_the_summary_of_one_seed_claims_nothing_of_methods() -> None:
    assert "dora (one seed): " in summary(build_report(comparison(), results(num_seeds=1)))


def test_without_the_reference_the_summary_says_that_nothing_is_compared() -> None:
    others = [each for each in results() if each.method != "lora"]
    assert "Nothing is compared" in summary(build_report(comparison(), others, {"lora": "lost"}))


def test_every_method_and_task_has_its_mean_as_a_metric() -> None:
    report = build_report(comparison(), results())
    found = means(report)
    assert found["compare/hyplora/svamp/accuracy"] == report.methods[3].scores["svamp"].value
    assert found["compare/base/gsm8k/nll"] == report.methods[0].nlls["gsm8k"].value
    assert len(found) == 4 * 2 * 2

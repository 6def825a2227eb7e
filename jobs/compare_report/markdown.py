"""A comparison's report as a page in Markdown."""

from jobs.compare_report.comparison import Measure, MethodDifference, Verdict
from jobs.compare_report.method_summary import MethodSummary
from jobs.compare_report.report import CompareReport
from jobs.compare_report.seeds_mean import SeedsMean
from jobs.compare_report.sentences import amount, p_label, rate_label, verdict
from jobs.markdown_table import markdown_table

_MARKS = {Verdict.BETTER: "**{} ▲**", Verdict.WORSE: "**{} ▼**", Verdict.NOT_SHOWN: "{}"}


def to_markdown(report: CompareReport) -> str:
    """Findings and the table first, then what they rest on."""
    spec = report.spec
    parts = [
        f"# Comparison of methods: {spec.name}",
        "## Findings\n\n" + "\n".join(f"- {finding}" for finding in report.findings),
        f"## Scores\n\n{markdown_table(*_scores(report))}\n\n{_legend(report)}",
    ]
    if any(method.nlls for method in report.methods):
        parts.append(
            "## Negative log-likelihood of the gold answers\n\nIn nats a token; less is better.\n\n"
            + markdown_table(*_nlls(report))
        )
    for method in report.methods:
        sentences = [verdict(each) for each in report.differences if each.method == method.method]
        if sentences:
            listed = "\n".join(f"- {sentence}" for sentence in sentences)
            parts.append(f"## {method.method} and {spec.reference}\n\n{listed}")
    if report.differences:
        parts.append(
            f"## Differences from {spec.reference}\n\n{markdown_table(*_differences(report))}"
        )
    if any(difference.seed_tests for difference in report.differences):
        parts.append(
            "## McNemar's test of each seed\n\nOf two adapters of one seed each, not corrected; "
            "no verdict rests on it.\n\n" + markdown_table(*_seed_tests(report))
        )
    parts.append(f"## How it was run\n\n{_run(report)}\n\n{markdown_table(*_rates(report))}")
    return "\n\n".join(parts) + "\n"


def _scores(report: CompareReport) -> tuple[list[str], list[list[str]]]:
    averages = ["average"] if len(report.tasks) > 1 else []
    heads = ["method", *(task.name for task in report.tasks), *averages]
    heads += ["parameters", "minutes", "memory"]
    rows = []
    for method in report.methods:
        cells = _marked(report, method, method.scores, method.average_score, "score")
        memory = method.peak_memory_bytes
        rows.append(
            [
                method.method,
                *cells,
                f"{method.num_trainable_parameters:,}",
                f"{method.train_seconds / 60:.1f}" if method.seeds else "–",
                f"{memory / 2**30:.2f} GiB" if memory is not None else "–",
            ]
        )
    return heads, rows


def _nlls(report: CompareReport) -> tuple[list[str], list[list[str]]]:
    averages = ["average"] if len(report.tasks) > 1 else []
    heads = ["method", *(task.name for task in report.tasks), *averages, "place", "by score"]
    rows = [
        [
            method.method,
            *_marked(report, method, method.nlls, method.average_nll, "nll"),
            str(method.rank_by_nll),
            str(method.rank_by_score),
        ]
        for method in report.methods
        if method.average_nll is not None
    ]
    return heads, rows


def _marked(
    report: CompareReport,
    method: MethodSummary,
    means: dict[str, SeedsMean],
    average: SeedsMean | None,
    measure: Measure,
) -> list[str]:
    """Cells of a method, marked where a difference between methods is shown."""
    verdicts = {
        each.task: each.verdict
        for each in report.differences
        if each.method == method.method and each.measure == measure and each.holds_for == "methods"
    }
    columns: list[tuple[str | None, SeedsMean]] = [*means.items()]
    if average is not None and len(means) > 1:
        columns.append((None, average))
    return [
        _MARKS[verdicts.get(task, Verdict.NOT_SHOWN)].format(_mean(mean, measure))
        for task, mean in columns
    ]


def _mean(mean: SeedsMean, measure: Measure) -> str:
    scale, digits = (100, 1) if measure == "score" else (1, 4)
    half = "" if mean.half_width is None else f" ± {scale * mean.half_width:.{digits}f}"
    return f"{scale * mean.value:.{digits}f}{half}"


def _legend(report: CompareReport) -> str:
    kinds = {task.metric for task in report.tasks}
    kind = "Accuracy" if kinds == {"accuracy"} else "Accuracy or F1"
    return (
        f"{kind} in %, mean over seeds ± half of the 95 % interval over seeds (none with one run). "
        f"Bold: a difference from {report.spec.reference} is shown, ▲ better, ▼ worse; where "
        "nothing is bold, no difference is shown, however the numbers look. Minutes are of one "
        "training at the chosen learning rate; memory is the most on one device."
    )


def _differences(report: CompareReport) -> tuple[list[str], list[list[str]]]:
    heads = ["method", "task", "of", "difference", "95 % interval", "p rows", "p seeds"]
    heads += ["corrected p", "could have shown", "verdict"]
    return heads, [_difference(each) for each in report.differences]


def _difference(each: MethodDifference) -> list[str]:
    return [
        each.method,
        each.task or "average",
        each.measure,
        amount(each, each.estimate),
        f"{amount(each, each.low, unit=False)} to {amount(each, each.high, unit=False)}",
        p_label(each.p_rows),
        "–" if each.p_seeds is None else p_label(each.p_seeds),
        p_label(each.p_adjusted),
        "–" if each.detectable is None else amount(each, each.detectable).removeprefix("+"),
        each.verdict if each.holds_for == "methods" else f"{each.verdict} (these adapters)",
    ]


def _seed_tests(report: CompareReport) -> tuple[list[str], list[list[str]]]:
    heads = ["method", "task", "seed", "only the method right", "only the reference right", "p"]
    rows = [
        [
            each.method,
            each.task or "average",
            "–" if test.seed is None else str(test.seed),
            str(test.num_only_method),
            str(test.num_only_reference),
            p_label(test.p_value),
        ]
        for each in report.differences
        for test in each.seed_tests
    ]
    return heads, rows


def _run(report: CompareReport) -> str:
    spec = report.spec
    tasks = "; ".join(
        f"{task.name} ({task.num_rows} questions, digest {task.question_digest})"
        for task in report.tasks
    )
    seeds = ", ".join(map(str, spec.seeds))
    chosen_with = "the first seed" if spec.rates_chosen_with == "first_seed" else "all seeds"
    length = f"{spec.training.num_epochs} epochs"
    if spec.training.max_steps is not None:
        length = f"at most {spec.training.max_steps} steps"
    return (
        f"Base model {spec.base_model}. Every training: {length}, batches of "
        f"{spec.training.batch_size} rows. Seeds: {seeds}. Tasks: {tasks}. Learning rates were "
        f"chosen with {chosen_with}, by the negative log-likelihood of the validation rows' "
        "answers (nats a token, below); no task had a say."
    )


def _rates(report: CompareReport) -> tuple[list[str], list[list[str]]]:
    rows = []
    for method in report.methods:
        tried = [
            f"{rate_label(each.learning_rate)}: "
            + ("diverged" if each.nll is None else f"{each.nll:.4f}")
            for each in method.rates_tried
        ]
        seeds = ", ".join(map(str, method.seeds)) or "–"
        rows.append(
            [
                method.method,
                method.adapter,
                rate_label(method.learning_rate),
                "; ".join(tried) or "–",
                seeds,
            ]
        )
    return ["method", "adapter", "learning rate", "tried", "seeds"], rows

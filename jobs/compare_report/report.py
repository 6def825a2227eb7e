"""What a comparison found, as data."""

from collections.abc import Mapping, Sequence

from jobs.compare_report.comparison import MethodDifference, compare
from jobs.compare_report.method_results import MethodResult, require_same_questions
from jobs.compare_report.method_summary import MethodSummary, summaries
from jobs.compare_report.sentences import findings
from jobs.compare_specs import CompareSpec
from workers.document import Document
from workers.tasks.accuracy import AnswerMetric


class ComparedTask(Document):
    """What the methods were asked."""

    name: str

    metric: AnswerMetric
    """What the mean of its scores is called."""

    num_rows: int
    """Questions."""

    question_digest: str
    """Of the questions and gold answers in their order."""


class CompareReport(Document):
    """What a comparison found."""

    spec: CompareSpec
    """What was asked for."""

    tasks: tuple[ComparedTask, ...]

    methods: tuple[MethodSummary, ...]
    """In the order of the spec."""

    missing: dict[str, str]
    """Methods without a result, and why."""

    differences: tuple[MethodDifference, ...]
    """Every method less the reference; empty where that has no result."""

    findings: tuple[str, ...]
    """The above in sentences."""


def build_report(
    spec: CompareSpec, results: Sequence[MethodResult], missing: Mapping[str, str] | None = None
) -> CompareReport:
    """Analyse the runs of a comparison.

    Args:
        spec: What was asked for.
        results: Of the methods that have any.
        missing: Methods that have none, and why.

    Raises:
        DifferentQuestionsError: If not all runs answered the same questions.
        ValueError: If there is no result, or one is not whole.
    """
    if not results:
        raise ValueError("a report needs the result of one method or more")
    require_same_questions(results)
    order = [method.name for method in spec.methods]
    ordered = sorted(results, key=lambda result: order.index(result.method))
    first = ordered[0].runs[0].tasks
    methods = summaries(ordered)
    has_reference = spec.reference in {result.method for result in ordered}
    differences = compare(ordered, spec.reference) if has_reference else ()
    return CompareReport(
        spec=spec,
        tasks=tuple(
            ComparedTask(
                name=name,
                metric=scores.metric,
                num_rows=len(scores.scores),
                question_digest=scores.question_digest,
            )
            for name, scores in first.items()
        ),
        methods=methods,
        missing=dict(missing or {}),
        differences=differences,
        findings=tuple(findings(spec.reference, methods, differences, missing or {})),
    )

"""What a comparison found, in sentences that claim no more than the answers show."""

from collections.abc import Mapping, Sequence

from jobs.compare_report.comparison import MethodDifference, Verdict
from jobs.compare_report.method_summary import MethodSummary
from jobs.search_report.value_labels import number_label

_FEWEST_SEEDS = 3
_NOTABLE = 0.01
"""Relative difference of trainable parameters that is worth a sentence."""


def findings(
    reference: str,
    methods: Sequence[MethodSummary],
    differences: Sequence[MethodDifference],
    missing: Mapping[str, str],
) -> list[str]:
    """The outcome first, then the averages, then what limits both."""
    lacking = [f"{name} has no result: {reason}." for name, reason in missing.items()]
    if not differences:
        return ["Nothing is compared: there is no result to compare with.", *lacking]
    return [
        _headline(reference, differences),
        *(verdict(each) for each in differences if each.task is None),
        *_shown_on_tasks(differences),
        *_order(methods),
        *_seeds(methods),
        *_budgets(reference, methods),
        *lacking,
    ]


def outline(reference: str, differences: Sequence[MethodDifference]) -> str:
    """What single tasks show by answers, in one line: of every method, task by task."""
    parts = []
    of_score = [each for each in differences if each.measure == "score" and each.task is not None]
    for method in dict.fromkeys(each.method for each in of_score):
        own = [each for each in of_score if each.method == method]
        outcomes = [
            f"{_beside(kind, reference)} on {', '.join(tasks)}"
            for kind in Verdict
            if (tasks := [str(each.task) for each in own if each.verdict is kind])
        ]
        is_of_adapters = all(each.holds_for == "adapters" for each in own)
        name = f"{method} (one seed)" if is_of_adapters else method
        parts.append(f"{name}: {', '.join(outcomes)}")
    return "; ".join(parts)


def verdict(difference: MethodDifference) -> str:
    """What may be said of a method beside the reference on one task, or on average."""
    first, second = difference.method, difference.reference
    place = _place(difference)
    numbers = (
        f"{amount(difference, difference.estimate)}, 95 % interval "
        f"{amount(difference, difference.low, unit=False)} to "
        f"{amount(difference, difference.high, unit=False)}, corrected p "
        f"{p_relation(difference.p_adjusted)}"
    )
    if difference.verdict is Verdict.NOT_SHOWN:
        pair = f"{first} and {second}: no difference shown {place}"
        return f"{pair} ({numbers}); {_could_have(difference)}"
    whose = "" if difference.holds_for == "methods" else "the adapter of "
    than = "" if difference.holds_for == "methods" else "that of "
    return f"{whose}{first} is {difference.verdict} than {than}{second} {place} ({numbers})."


def amount(difference: MethodDifference, value: float, *, unit: bool = True) -> str:
    """A difference in points of accuracy, or in nats a token."""
    if difference.measure == "score":
        return f"{100 * value:+.2f}" + (" points" if unit else "")
    return f"{value:+.4f}" + (" nats a token" if unit else "")


def p_label(p_value: float) -> str:
    """A p-value, as far as it says anything."""
    return "< 0.0001" if p_value < 1e-4 else f"{p_value:.2g}"


def p_relation(p_value: float) -> str:
    """What follows "p" in a sentence."""
    label = p_label(p_value)
    return label if label.startswith("<") else f"= {label}"


def rate_label(rate: float | None) -> str:
    """A learning rate in few characters."""
    return "–" if rate is None else number_label(rate)


def _headline(reference: str, differences: Sequence[MethodDifference]) -> str:
    of_score = [each for each in differences if each.measure == "score" and each.task is not None]
    counts = {kind: sum(each.verdict is kind for each in of_score) for kind in Verdict}
    shown = len(of_score) - counts[Verdict.NOT_SHOWN]
    if not shown:
        return (
            f"On no task does any method show a difference from {reference} in its answers "
            f"({len(of_score)} comparisons, corrected after Holm)."
        )
    return (
        f"Of {len(of_score)} comparisons with {reference} by answers on single tasks, {shown} show "
        f"a difference after Holm's correction: {counts[Verdict.BETTER]} better, "
        f"{counts[Verdict.WORSE]} worse."
    )


def _shown_on_tasks(differences: Sequence[MethodDifference]) -> list[str]:
    return [
        verdict(each)
        for each in differences
        if each.measure == "score" and each.task is not None
        if each.verdict is not Verdict.NOT_SHOWN
    ]


def _beside(kind: Verdict, reference: str) -> str:
    return f"{kind} from {reference}" if kind is Verdict.NOT_SHOWN else f"{kind} than {reference}"


def _place(difference: MethodDifference) -> str:
    where = "on average over the tasks" if difference.task is None else f"on {difference.task}"
    by = "" if difference.measure == "score" else " by the gold answers' likelihood"
    return where + by


def _could_have(difference: MethodDifference) -> str:
    if difference.detectable is None:
        return "so few questions and seeds could have shown none, however large."
    size = amount(difference, difference.detectable).removeprefix("+")
    return f"a true difference of {size} would have been shown in four cases of five."


def _order(methods: Sequence[MethodSummary]) -> list[str]:
    by_score = sorted(methods, key=lambda each: each.rank_by_score)
    listed = ", ".join(f"{each.method} {100 * each.average_score.value:.1f}" for each in by_score)
    sentences = [f"By the average score, shown or not, the order is {listed}."]
    by_nll = sorted(
        (each.average_nll.value, each.method) for each in methods if each.average_nll is not None
    )
    if by_nll:
        listed = ", ".join(f"{name} {value:.4f}" for value, name in by_nll)
        agree = [name for _, name in by_nll] == [each.method for each in by_score]
        sentences.append(
            f"By the gold answers' negative log-likelihood it is {listed} (nats a token, less is "
            f"better): {'the same order' if agree else 'another order'}."
        )
    return sentences


def _seeds(methods: Sequence[MethodSummary]) -> list[str]:
    counts = {each.method: len(each.seeds) for each in methods if each.seeds}
    if not counts:
        return []
    if max(counts.values()) == 1:
        return [
            "Every method has one seed: what is said holds for these adapters, and nothing is "
            "known of others that the methods would train."
        ]
    sentences = []
    if min(counts.values()) < _FEWEST_SEEDS:
        few = ", ".join(f"{name} {number}" for name, number in counts.items() if number < 3)
        sentences.append(
            f"With fewer than {_FEWEST_SEEDS} seeds ({few}) little can be told from a seed's luck."
        )
    if len(set(counts.values())) > 1:
        sentences.append("The methods have different numbers of seeds; compare with care.")
    return sentences


def _budgets(reference: str, methods: Sequence[MethodSummary]) -> list[str]:
    sentences = [
        f"The chosen learning rate of {each.method}, {rate_label(each.learning_rate)}, is at the "
        "edge of those tried: a rate beyond might do better."
        for each in methods
        if each.is_rate_at_edge
    ]
    sizes = {each.method: each.num_trainable_parameters for each in methods if each.seeds}
    base = sizes.get(reference, 0)
    larger = [
        f"{name} {size / base:.2f}"
        for name, size in sizes.items()
        if base and abs(size / base - 1) > _NOTABLE
    ]
    if larger:
        sentences.append(
            f"Trainable parameters are not equal; times those of {reference}: {', '.join(larger)}."
        )
    return sentences

"""Word problems with a number for an answer: reading it from the text, and scoring.

An answer is the last number of the text, and right within 0.001: the rule of the LLM-Adapters
suite (Hu et al. 2023, arXiv:2304.01933), which HypLoRA's results follow (arXiv:2410.04010).
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

TOLERANCE = 1e-3
"""Largest difference between an answer and the gold number."""

_UNSIGNED = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\w)\.\d+"
_NUMBER = re.compile(
    r"(?P<sign>[-−]\s*)?[$€£]?\s?"
    rf"(?:(?P<whole>\d+)\s+(?=\d+/\d))?(?P<value>{_UNSIGNED})(?:\s?/\s?(?P<divisor>{_UNSIGNED}))?",
    re.ASCII,
)
_Z_95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


@dataclass(frozen=True)
class Accuracy:
    """A share of right answers with its 95 % Wilson interval (Wilson 1927)."""

    num_correct: int
    num_rows: int

    @property
    def value(self) -> float:
        """Share of right answers, from 0 to 1."""
        return self.num_correct / self.num_rows

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end of the interval; sensible also at 0 and 1."""
        spread = _Z_95**2 / self.num_rows
        centre = self.value + spread / 2
        half = math.sqrt(spread * (self.value * (1 - self.value) + spread / 4))
        return (
            max(0.0, (centre - half) / (1 + spread)),
            min(1.0, (centre + half) / (1 + spread)),
        )


def extract_number(text: str) -> float | None:
    """The last number of a text; None if it has none.

    Reads decimals, thousands separators, fractions and mixed numbers (3/4, 1 1/2) and a leading
    minus, which is told from a subtraction: "12 - 5" ends in 5.
    """
    last = None
    for last in _NUMBER.finditer(text):  # noqa: B007
        pass
    if last is None:
        return None
    value = _parse(last["value"])
    if last["divisor"] is not None:
        divisor = _parse(last["divisor"])
        value = value / divisor if divisor else math.nan
    value += _parse(last["whole"] or "0")
    if not math.isfinite(value):
        return None
    return -value if _is_negated(text[: last.start()], last["sign"]) else value


def is_correct(answer_text: str, gold: float | str) -> bool:
    """Whether the last number of an answer is the gold number, within `TOLERANCE`.

    Raises:
        ValueError: If gold is a text without a number.
    """
    expected = extract_number(gold) if isinstance(gold, str) else gold
    if expected is None:
        raise ValueError(f"gold answer {gold!r} holds no number; score it with another task")
    answer = extract_number(answer_text)
    return answer is not None and abs(answer - expected) <= TOLERANCE


def accuracy(answer_texts: Sequence[str], golds: Sequence[float | str]) -> Accuracy:
    """Score answers against gold numbers.

    Raises:
        ValueError: If there is no row, or the lengths differ.
    """
    if not answer_texts:
        raise ValueError("an accuracy needs at least one answer")
    pairs = zip(answer_texts, golds, strict=True)
    return Accuracy(sum(is_correct(answer, gold) for answer, gold in pairs), len(answer_texts))


def _is_negated(before: str, sign: str | None) -> bool:
    """Whether a minus is a sign; one after a number subtracts, one within words is a dash."""
    if sign is None:
        return False
    words = before.rstrip()
    if words.endswith((")", "]", "}", "%")) or words[-1:].isdigit():
        return False
    stands_apart = words != before and sign == sign.rstrip()
    return stands_apart or not words[-1:].isalpha()


def _parse(digits: str) -> float:
    return float(digits.replace(",", ""))

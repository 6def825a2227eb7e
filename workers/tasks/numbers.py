r"""Reading a number from an answer, and scoring it.

The number is the one in the last ``\boxed{…}`` that holds any, else the last of the text; it is
right within 0.001. The last number and the tolerance are the rule of the LLM-Adapters suite
(Hu et al. 2023, arXiv:2304.01933), which HypLoRA's results follow (arXiv:2410.04010).
"""

import math
import re
import unicodedata
from dataclasses import dataclass
from typing import ClassVar

from workers.tasks.accuracy import AnswerMetric
from workers.tasks.boxes import boxed_texts

TOLERANCE = 1e-3
"""Largest difference between an answer and the gold number."""

_UNSIGNED = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\w)\.\d+"
_NUMBER = re.compile(
    r"(?P<sign>[-−]\s*)?[$€£]?\s?"
    rf"(?:(?P<whole>\d+)\s+(?=\d+/\d))?(?P<value>{_UNSIGNED})(?:\s?/\s?(?P<divisor>{_UNSIGNED}))?",
    re.ASCII,
)
_FRACTION = re.compile(
    r"(?P<before>\d?)\s?\\[dt]?frac\s?"
    r"(?:\{\s?(?P<over>[\d.,]+)\s?\}\s?\{\s?(?P<under>[\d.,]+)\s?\}|(?P<o>\d)\s?(?P<u>\d))"
)
_VULGAR_FRACTION = re.compile("(?P<before>[0-9]?)(?P<glyph>[¼-¾⅐-⅞])")
_SEPARATOR = re.compile(r"(?<=\d)(?:\{,\}|\\,|\\!|,\\!)(?=\d{3}(?!\d))", re.ASCII)
_EXPONENT = re.compile(r"(?<=[A-Za-z)}\]])\s?\^\s?(?:\{\s?-?\d+\s?\}|-?\d+)")


@dataclass(frozen=True)
class NumberScorer:
    """Right is the gold number, within a tolerance."""

    metric: ClassVar[AnswerMetric] = "accuracy"

    tolerance: float = TOLERANCE
    """Largest difference that still counts as right."""

    def extract(self, answer: str) -> str | None:
        """The number as text; None if the answer has none."""
        number = extract_number(answer)
        return None if number is None else f"{number:.12g}"

    def score(self, answer: str, gold: str) -> float:
        """1 if the answer's number is the gold's, else 0.

        Raises:
            ValueError: If the gold holds no number.
        """
        return float(is_correct(answer, gold, self.tolerance))

    def check_gold(self, gold: str) -> None:
        """Raise ValueError, with what to do, if no answer could be right."""
        _gold_number(gold)


def extract_number(text: str) -> float | None:
    r"""The number that an answer ends in or boxes; None if it has none.

    Reads decimals, thousands separators, fractions and mixed numbers (3/4, 1 1/2, ½, LaTeX's
    ``\frac``) and a leading minus, which is told from a subtraction: "12 - 5" ends in 5. The
    exponent of a unit (``cm^2``) is no number.
    """
    for boxed in reversed(boxed_texts(text)):
        if (number := _last_number(boxed)) is not None:
            return number
    return _last_number(text)


def is_correct(answer_text: str, gold: float | str, tolerance: float = TOLERANCE) -> bool:
    """Whether the number of an answer is the gold number, within a tolerance.

    Raises:
        ValueError: If gold is a text without a number.
    """
    expected = _gold_number(gold) if isinstance(gold, str) else gold
    answer = extract_number(answer_text)
    return answer is not None and abs(answer - expected) <= tolerance


def _gold_number(gold: str) -> float:
    number = extract_number(gold)
    if number is None:
        raise ValueError(
            f"{gold!r} holds no number; write the number, or choose another scorer than number"
        )
    return number


def _last_number(text: str) -> float | None:
    plain = _without_latex(text)
    last = None
    for last in _NUMBER.finditer(plain):  # noqa: B007
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
    return -value if _is_negated(plain[: last.start()], last["sign"]) else value


def _without_latex(text: str) -> str:
    """Fractions, separators and exponents of units as plain text has them."""
    if "^" in text:
        text = _EXPONENT.sub("", text)
    if "\\" in text or "{" in text:
        text = _SEPARATOR.sub("", text)
        text = _FRACTION.sub(_as_quotient, text).replace("\\$", "$").replace("\\%", "%")
    return _VULGAR_FRACTION.sub(_glyph_as_quotient, text)


def _as_quotient(fraction: re.Match[str]) -> str:
    over, under = fraction["over"] or fraction["o"], fraction["under"] or fraction["u"]
    return _behind(fraction["before"], f"{over}/{under}")


def _glyph_as_quotient(fraction: re.Match[str]) -> str:
    quotient = unicodedata.normalize("NFKC", fraction["glyph"]).replace("\u2044", "/")
    return _behind(fraction["before"], quotient)


def _behind(digit: str, quotient: str) -> str:
    """A quotient, apart from the whole number before it."""
    return f"{digit} {quotient}" if digit else quotient


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

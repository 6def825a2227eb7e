r"""Reading the letter of an option, such as A to E, from an answer, and scoring it.

In this order: a letter in the last ``\boxed{…}``; the last letter that the answer says is its
answer ("the answer is (C)", "C is correct"); one that it begins with ("C) 5"); the last one that is
marked as an option ("(C)", "option C"), unless it only repeats the list of options. A capital that
may be a word or a variable ("A car", "B's share") is none of these.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from workers.tasks.accuracy import AnswerMetric
from workers.tasks.boxes import boxed_texts
from workers.tasks.mentions import without_listings

_WRAPPED = r"[\s:\"'`*_$(\[{]*(?:\\[a-z]+\s?\{?[\s(*]*)?"
_OPTION = r"(?i:options?|choices?|letter)"
_NOT_AN_ARTICLE = (
    r"(?!(?<=A)\s+(?!(?:is|was|because|since|as|and|which|with|for|by|due)\b)[a-z0-9])"
)


@dataclass(frozen=True)
class LetterScorer:
    """Right is the gold letter."""

    metric: ClassVar[AnswerMetric] = "accuracy"

    letters: str = "ABCDE"
    """The capitals that stand for options, in their order."""

    def extract(self, answer: str) -> str | None:
        """The letter, as a capital; None if the answer has none."""
        return extract_letter(answer, self.letters)

    def score(self, answer: str, gold: str) -> float:
        """1 if the answer's letter is the gold's, else 0.

        Raises:
            ValueError: If the gold is none of the letters.
        """
        self.check_gold(gold)
        return float(self.extract(answer) == gold.strip().upper())

    def check_gold(self, gold: str) -> None:
        """Raise ValueError, with what to do, if no answer could be right."""
        letter = gold.strip().upper()
        if len(letter) != 1 or letter not in self.letters:
            raise ValueError(f"{gold!r} is none of the letters {', '.join(self.letters)}; give one")


@dataclass(frozen=True)
class _Patterns:
    boxed: re.Pattern[str]
    stated: re.Pattern[str]
    beginning: re.Pattern[str]
    marked: re.Pattern[str]


def extract_letter(text: str, letters: str = "ABCDE") -> str | None:
    """The letter that an answer chooses, as a capital; None if it chooses none."""
    patterns = _patterns(letters)
    for boxed in reversed(boxed_texts(text)):
        if found := patterns.boxed.match(boxed):
            return _letter(found)
    if stated := list(patterns.stated.finditer(text)):
        return _letter(stated[-1])
    mentioned = [_letter(each) for each in patterns.marked.finditer(text)]
    meant = without_listings(mentioned, letters)
    begins_with_listing = meant[:1] != mentioned[:1]
    if (beginning := patterns.beginning.match(text)) and not begins_with_listing:
        return _letter(beginning)
    return meant[-1] if meant else None


def _letter(found: re.Match[str]) -> str:
    return next(group for group in found.groups() if group).upper()


@cache
def _patterns(letters: str) -> _Patterns:
    small = letters.lower()
    # Bracketed, a small letter is an option, too; alone it is a word or a variable.
    letter = rf"(?:([{letters}])(?![\w'’]){_NOT_AN_ARTICLE}|(?<=\()([{small}])(?=\)))"
    verb = r"(?i:is|was|be|would\s+be|must\s+be|should\s+be)\b"
    stated = (
        rf"\b(?i:answer|ans\.?|choice|option)(?!\w)[\s*_]*(?:{verb}|[:=]|(?<=\.))"
        rf"(?:\s+(?i:therefore|thus|clearly|the|{_OPTION}))*{_WRAPPED}(?:{_OPTION}\s)?\(?{letter}"
    )
    selected = (
        rf"(?<![\w'])\(?{letter}[)\]*.:]*\s+(?i:is|was)\s+(?i:indeed\s+|therefore\s+)?"
        r"(?i:the\s+)?(?i:correct|right|best|answer)\b"
    )
    beginning = rf"\W*(?:{_OPTION}\s+\(?)?{letter}(?=\s*(?:$|\n)|[).:\]*}}])"
    marked = "|".join(
        (
            rf"(?<!\w)(?<!\bnot\s)[(\[]([{letters}{small}])[)\]](?!\w)",
            rf"^[ \t*>-]*([{letters}])[).](?=\s|$)",
            rf"(?<!\bnot\s)\b{_OPTION}\s+\(?([{letters}])\b",
            rf"\*\*([{letters}])\*\*",
            rf"^[^\w\n]*([{letters}])[^\w\n]*$",
        )
    )
    return _Patterns(
        re.compile(rf"{_WRAPPED}(?:{_OPTION}\s+\(?)?([{letters}{small}])(?![\w'’])"),
        re.compile(f"{stated}|{selected}"),
        re.compile(beginning),
        re.compile(marked, re.MULTILINE),
    )

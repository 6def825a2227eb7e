r"""Reading the word of an option, such as "answer2" or "true", from an answer, and scoring it.

In this order: a word in the last ``\boxed{…}``; the last word that the answer says is its answer
("the correct answer is answer2", "answer2 is correct"); a yes or no that it begins with, where the
options are true and false; the first word that it mentions, which is the rule of the LLM-Adapters
suite (Hu et al. 2023, arXiv:2304.01933). Lists of the options ("true/false", "Answer1: …
Answer2: …") are no mentions, and neither is "not true".
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from workers.tasks.accuracy import AnswerMetric
from workers.tasks.boxes import boxed_texts
from workers.tasks.mentions import without_listings

_NUMBERED = re.compile(r"([a-z]+)(\d+)", re.IGNORECASE)
_WRAPPED = r"[\s:\"'`*_$(\[{]*(?:\\[a-z]+\s?\{[\s*]*)?"
_SUBJECT = r"\b(?:answer|option|choice|solution|ending|response|statement|claim|label)\b"
_VERB = r"(?:(?:is|was|be|would\s+be|must\s+be|should\s+be)\b|[:=])"


@dataclass(frozen=True)
class OptionScorer:
    """Right is the gold option's word; case does not matter."""

    metric: ClassVar[AnswerMetric] = "accuracy"

    words: tuple[str, ...]
    """The options' words, in the order in which a list of them would stand."""

    synonyms: tuple[tuple[str, str], ...] = ()
    """Further words, each with the option's; read where an answer begins with one or states it."""

    def extract(self, answer: str) -> str | None:
        """The option's word as it stands in `words`; None if the answer has none."""
        patterns = _patterns(self.words, tuple(synonym for synonym, _ in self.synonyms))
        word = _chosen(answer, patterns, [spelling_of(word) for word in self.words])
        if word is None:
            return None
        names = {spelling_of(word): word for word in self.words}
        names |= {spelling_of(synonym): word for synonym, word in self.synonyms}
        # A few letters are alike to a pattern that ignores case, and not to casefold: a dotless i.
        return names.get(word)

    def score(self, answer: str, gold: str) -> float:
        """1 if the answer's option is the gold's, else 0.

        Raises:
            ValueError: If the gold is none of the words.
        """
        self.check_gold(gold)
        word = self.extract(answer)
        return float(word is not None and spelling_of(word) == spelling_of(gold))

    def check_gold(self, gold: str) -> None:
        """Raise ValueError, with what to do, if no answer could be right."""
        if spelling_of(gold) not in map(spelling_of, self.words):
            raise ValueError(f"{gold!r} is none of the options {', '.join(self.words)}; give one")


def spelling_of(word: str) -> str:
    """What spellings of one word have in common: case, blanks, and that before a number."""
    spelling = word.strip().casefold()
    joined = re.fullmatch(r"([a-z]+)[\s_#]?(\d+)", spelling)
    return f"{joined[1]}{joined[2]}" if joined else " ".join(spelling.split())


@dataclass(frozen=True)
class _Patterns:
    mention: re.Pattern[str]
    stated: re.Pattern[str]
    beginning: re.Pattern[str] | None


def _chosen(text: str, patterns: _Patterns, keys: Sequence[str]) -> str | None:
    """The key of the word that an answer chooses."""
    for boxed in reversed(boxed_texts(text)):
        if found := patterns.mention.search(boxed):
            return spelling_of(found[1])
    if stated := list(patterns.stated.finditer(text)):
        return spelling_of(next(group for group in stated[-1].groups() if group))
    if patterns.beginning and (found := patterns.beginning.match(text)):
        return spelling_of(found[1])
    mentioned = [
        (spelling_of(each[1]), each[2] is not None) for each in patterns.mention.finditer(text)
    ]
    listed = without_listings([key for key, is_label in mentioned if is_label], keys)
    for key, is_label in mentioned:
        if not is_label or key in listed:
            return key
    return None


@cache
def _patterns(words: tuple[str, ...], synonyms: tuple[str, ...]) -> _Patterns:
    option = _alternatives(words)
    yes_or_no = rf"{_alternatives(synonyms)}(?=[^\S\n]*(?:[^\w\s-]|\n|$)|\s-)" if synonyms else None
    named = (
        rf"(?<![\w/])(?<!/\s)(?<!\bnot\s)(?<!n['’]t\s)({option})(?!\w|\s?/\s?\w)"
        r"(?!\s+is\s+(?:not|incorrect|wrong)\b)"
    )
    stated = rf"{_SUBJECT}[\s*_]*{_VERB}(?:\s+the)?{_WRAPPED}{named}"
    selected = (
        rf"{named}[\"'`*)\s]*\s(?:is|would\s+be)\s+(?:the\s+)?"
        r"(?:(?:most|more|only|indeed|clearly|therefore)\s+)?(?:correct|right|best)\b"
    )
    further = rf"|{_SUBJECT}[\s*_]*{_VERB}{_WRAPPED}({yes_or_no})" if yes_or_no else ""
    return _Patterns(
        re.compile(rf"{named}(\s?:)?", re.IGNORECASE),
        re.compile(f"{stated}|{selected}{further}", re.IGNORECASE),
        re.compile(rf"\W*({yes_or_no})", re.IGNORECASE) if yes_or_no else None,
    )


def _alternatives(words: Sequence[str]) -> str:
    """Any of some words, the longest that fits; "answer 2" is read as "answer2"."""
    longest_first = sorted(words, key=len, reverse=True)
    return f"(?:{'|'.join(_loosened(word) for word in longest_first)})"


def _loosened(word: str) -> str:
    if numbered := _NUMBERED.fullmatch(word):
        return rf"{numbered[1]}[\s_#]?{numbered[2]}"
    return r"\s+".join(re.escape(part) for part in word.split())

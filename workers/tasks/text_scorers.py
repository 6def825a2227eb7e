"""Scoring an answer as a text: exactly, by its words, or by what a pattern finds in it.

Words are counted as SQuAD counts them: without case, punctuation and the articles a, an, the
(Rajpurkar et al. 2016, arXiv:1606.05250).
"""

import re
import string
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from workers.tasks.accuracy import AnswerMetric
from workers.tasks.patterns import first_match

_ARTICLE = re.compile(r"\b(?:a|an|the)\b")


@dataclass(frozen=True)
class ExactScorer:
    """Right is the gold text; white space at the ends and its amount never count."""

    metric: ClassVar[AnswerMetric] = "accuracy"

    ignore_case: bool = False
    """Whether A is a."""

    ignore_punctuation: bool = False
    """Whether punctuation is left out."""

    ignore_articles: bool = False
    """Whether a, an and the are left out, in lower case."""

    def extract(self, answer: str) -> str:
        """The answer as it is compared."""
        return self._plain(answer)

    def score(self, answer: str, gold: str) -> float:
        """1 if the answer is the gold text, else 0."""
        return float(self._plain(answer) == self._plain(gold))

    def check_gold(self, gold: str) -> None:
        """Any text can be right."""

    def _plain(self, text: str) -> str:
        if self.ignore_case:
            text = text.lower()
        if self.ignore_punctuation:
            text = _without_punctuation(text)
        if self.ignore_articles:
            text = _ARTICLE.sub(" ", text)
        return " ".join(text.split())


@dataclass(frozen=True)
class F1Scorer:
    """How many words answer and gold share: the harmonic mean of precision and recall."""

    metric: ClassVar[AnswerMetric] = "f1"

    def extract(self, answer: str) -> str:
        """The answer's words as they are counted."""
        return " ".join(words_of(answer))

    def score(self, answer: str, gold: str) -> float:
        """F1 from 0 to 1; two texts without words are alike, as in SQuAD 2.0."""
        given, expected = words_of(answer), words_of(gold)
        if not given or not expected:
            return float(given == expected)
        num_shared = sum((Counter(given) & Counter(expected)).values())
        return 2 * num_shared / (len(given) + len(expected))

    def check_gold(self, gold: str) -> None:
        """Any text can be right."""


@dataclass(frozen=True)
class RegexScorer:
    """Right is an answer in which a pattern finds the gold text first."""

    metric: ClassVar[AnswerMetric] = "accuracy"

    pattern: str
    """A regular expression in RE2's syntax; see `workers.tasks.patterns`."""

    ignore_case: bool = False
    """Whether A is a, in the pattern and in the comparison."""

    def extract(self, answer: str) -> str | None:
        """What the pattern finds, without white space at the ends; None if it finds nothing."""
        found = first_match(self.pattern, answer, ignore_case=self.ignore_case)
        return None if found is None else found.strip()

    def score(self, answer: str, gold: str) -> float:
        """1 if the pattern finds the gold text in the answer, else 0."""
        found, expected = self.extract(answer), gold.strip()
        if found is not None and self.ignore_case:
            found, expected = found.casefold(), expected.casefold()
        return float(found == expected)

    def check_gold(self, gold: str) -> None:
        """Any text can be right."""


def words_of(text: str) -> list[str]:
    """The words that SQuAD counts."""
    return _ARTICLE.sub(" ", _without_punctuation(text.lower())).split()


def _without_punctuation(text: str) -> str:
    return "".join(letter for letter in text if not _is_punctuation(letter))


def _is_punctuation(letter: str) -> bool:
    return letter in string.punctuation or unicodedata.category(letter).startswith("P")

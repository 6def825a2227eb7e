"""Questions that training data share with evaluation sets, and rows that repeat each other.

Texts are compared as words: lower-cased runs of letters and digits, numbers with their decimals,
and arithmetic signs, so that spacing and punctuation do not matter but 3 + 4 is not 3 - 4. Two
questions are exactly equal if their words are. They are nearly equal if the Jaccard similarity of
their word trigrams is at least `NEAR_THRESHOLD`:

    |A and B| / |A or B|    A, B: the sets of three consecutive words of the two questions

Every number is a word, and a changed word changes three trigrams, so a problem with other numbers
in the same template does not count unless it is long: it is another problem with another answer.
A rewording with the same numbers counts.

Source:
    Prefix filtering: Bayardo, Ma, Srikant 2007, doi:10.1145/1242572.1242591.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from workers.document import Document

NEAR_THRESHOLD = 0.7
"""Least trigram similarity of nearly equal questions. Of GSM8K's, AQuA's and MAWPS's training rows
without an exact match, 68 pairs with seven arithmetic test sets reach it: 67 are the same problem,
respaced ("didn't", "did n't"), reworded or with numbers written differently. From 0.6 to 0.7 it is
9 of 23; the others, and nearly all pairs below, are other numbers in the same template."""

PROMPT_SHARE = 0.5
"""A trigram that more than this share of an evaluation set's questions hold belongs to the prompt
around them and is not compared: BoolQ's prompt alone makes 600 unrelated questions similar."""

MIN_QUESTIONS_WITH_PROMPT = 20
"""Fewer distinct questions do not tell a prompt from what they happen to share."""

NUM_EXAMPLES = 3
"""Most examples of each kind that a report shows."""

MAX_EXAMPLE_CHARS = 200
"""Longest text of an example in characters."""

_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"  # kana and Han: each character is a word
_WORD = re.compile(
    rf"\d+(?:[.,]\d+)+|[{_UNSPACED}]|[^\W_{_UNSPACED}]+|[+*/^=<>×÷−]|-(?=\s*\d)"  # minus, no hyphen
)


class OverlapExample(Document):
    """A training question beside the evaluation question it equals or nearly equals."""

    train_row: int
    """Index of the training row, from 0."""

    evaluation_row: int
    """Index of the evaluation row, from 0."""

    train_text: str
    """Beginning of the training question."""

    evaluation_text: str
    """Beginning of the evaluation question."""

    similarity: float
    """Jaccard similarity of the word trigrams, the common prompt left out; 1 is equal."""


class Overlap(Document):
    """What the training data share with one evaluation set."""

    num_rows: int
    """Rows of the evaluation set."""

    num_train_exact: int
    """Training rows whose question is a question of the set."""

    num_train_near: int
    """Further training rows whose question nearly equals one of the set."""

    num_evaluation_exact: int
    """Rows of the set whose question is in the training data."""

    num_evaluation_near: int
    """Further rows of the set whose question nearly equals one of the training data."""

    examples: tuple[OverlapExample, ...]
    """The first exact and the first near ones, in the order of the training rows."""

    @property
    def num_evaluation_hit(self) -> int:
        """Rows of the set whose question is, exactly or nearly, in the training data."""
        return self.num_evaluation_exact + self.num_evaluation_near


@dataclass(frozen=True)
class LeakageReport:
    """What the training data share with every evaluation set."""

    overlaps: Mapping[str, Overlap]
    """By the name of the evaluation set, in the order given."""

    train_rows: frozenset[int]
    """Indices, from 0, of all training rows to leave out for none to be shared."""


class DuplicateExample(Document):
    """A row that repeats an earlier one."""

    row: int
    """Index of the row, from 0."""

    earlier_row: int
    """Index of the first row with the same question and answer."""

    text: str
    """Beginning of the row's question."""


class Duplicates(Document):
    """Rows that repeat an earlier row."""

    num_rows: int
    """Rows whose question and answer are those of an earlier row."""

    examples: tuple[DuplicateExample, ...]
    """The first of them."""


def find_overlaps(
    train: Sequence[str],
    evaluation: Mapping[str, Sequence[str]],
    threshold: float = NEAR_THRESHOLD,
) -> LeakageReport:
    """Find the training questions that are, exactly or nearly, in an evaluation set.

    Every pair from `threshold` up is found, and none below it. A MinHash index (datasketch, 128
    permutations) was slower on 9,241 questions against 4,314 and missed 11 of 66 pairs.

    Args:
        train: Questions of the training rows: instruction and input.
        evaluation: Questions of each evaluation set, by its name.
        threshold: Least Jaccard similarity of nearly equal questions, above 0 and at most 1.
    """
    train_rows = _rows_by_words(train)
    matches = {
        name: _Matches(train_rows, _rows_by_words(texts), threshold)
        for name, texts in evaluation.items()
    }
    for words in train_rows:
        trigrams = _trigrams(words)
        for found in matches.values():
            found.add(words, trigrams)
    leaked = chain.from_iterable((*found.exact, *found.near_train) for found in matches.values())
    return LeakageReport(
        overlaps={name: found.overlap(train, evaluation[name]) for name, found in matches.items()},
        train_rows=frozenset(row for words in leaked for row in train_rows[words]),
    )


def find_duplicates(questions: Sequence[str], answers: Sequence[str]) -> Duplicates:
    """Find the rows that repeat question and answer of an earlier row.

    Args:
        questions: Instruction and input of each row.
        answers: Output of each row.
    """
    first_rows: dict[tuple[str, str], int] = {}
    repeats: list[tuple[int, int]] = []
    for row, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        first = first_rows.setdefault((normalize(question), normalize(answer)), row)
        if first != row:
            repeats.append((row, first))
    return Duplicates(
        num_rows=len(repeats),
        examples=tuple(
            DuplicateExample(row=row, earlier_row=first, text=_cut(questions[row]))
            for row, first in repeats[:NUM_EXAMPLES]
        ),
    )


def normalize(text: str) -> str:
    """The words of a text, one space between; of a text without any, what is not white space."""
    text = unicodedata.normalize("NFC", text).lower()
    return " ".join(_WORD.findall(text) or text.split())


class _Matches:
    """Normalized questions that the training data share with one evaluation set."""

    def __init__(
        self,
        train_rows: Mapping[str, list[int]],
        evaluation_rows: Mapping[str, list[int]],
        threshold: float,
    ) -> None:
        self._train_rows, self._evaluation_rows = train_rows, evaluation_rows
        self._index = _TrigramIndex(list(evaluation_rows), threshold)
        self.exact = train_rows.keys() & evaluation_rows.keys()
        self.near_train: dict[str, tuple[float, str]] = {}  # with the most similar other
        self._near_evaluation: set[str] = set()

    def add(self, question: str, trigrams: frozenset[str]) -> None:
        """Look one training question up."""
        for similarity, evaluated in self._index.similar(trigrams):
            if evaluated not in self.exact:
                self._near_evaluation.add(evaluated)
            if question not in self.exact:
                best, _ = self.near_train.get(question, (0.0, ""))
                if similarity > best:
                    self.near_train[question] = similarity, evaluated

    def overlap(self, train: Sequence[str], evaluation: Sequence[str]) -> Overlap:
        """What was found, with examples from the texts as they were given."""
        exact = {question: (1.0, question) for question in self.exact}
        return Overlap(
            num_rows=len(evaluation),
            num_train_exact=_num_rows(self._train_rows, self.exact),
            num_train_near=_num_rows(self._train_rows, self.near_train),
            num_evaluation_exact=_num_rows(self._evaluation_rows, self.exact),
            num_evaluation_near=_num_rows(self._evaluation_rows, self._near_evaluation),
            examples=tuple(
                self._example(train, evaluation, question, *pairs[question])
                for pairs in (exact, self.near_train)
                for question in sorted(pairs, key=self._train_rows.__getitem__)[:NUM_EXAMPLES]
            ),
        )

    def _example(
        self,
        train: Sequence[str],
        evaluation: Sequence[str],
        question: str,
        similarity: float,
        evaluated: str,
    ) -> OverlapExample:
        train_row = self._train_rows[question][0]
        evaluation_row = self._evaluation_rows[evaluated][0]
        return OverlapExample(
            train_row=train_row,
            evaluation_row=evaluation_row,
            train_text=_cut(train[train_row]),
            evaluation_text=_cut(evaluation[evaluation_row]),
            similarity=similarity,
        )


class _TrigramIndex:
    """Finds all questions from a similarity up.

    Two sets this similar share all but a few trigrams, so they share one already among the few
    rarest of each: only these are looked up, and each pair found so is compared in full.
    """

    def __init__(self, questions: Sequence[str], threshold: float) -> None:
        self._questions, self._threshold = questions, threshold
        whole = [_trigrams(question) for question in questions]
        self._frequency = Counter(chain.from_iterable(whole))
        self._prompt = _prompt(self._frequency, len(questions))
        self._trigrams = [trigrams - self._prompt or trigrams for trigrams in whole]
        self._holders: defaultdict[str, list[int]] = defaultdict(list)
        for index, trigrams in enumerate(self._trigrams):
            for trigram in self._rarest(trigrams):
                self._holders[trigram].append(index)

    def similar(self, trigrams: frozenset[str]) -> Iterator[tuple[float, str]]:
        """Similarity and question of each, in the order of the questions."""
        trigrams = trigrams - self._prompt or trigrams
        candidates = {
            index for trigram in self._rarest(trigrams) for index in self._holders.get(trigram, ())
        }
        for index in sorted(candidates):
            similarity = _jaccard(trigrams, self._trigrams[index])
            if similarity >= self._threshold:
                yield similarity, self._questions[index]

    def _rarest(self, trigrams: frozenset[str]) -> list[str]:
        num_shared = int(self._threshold * len(trigrams))  # at least, with any similar set
        known = [trigram for trigram in trigrams if trigram in self._frequency]
        num_unknown = len(trigrams) - len(known)  # the rarest of all, and nobody holds them
        num_rarest = max(len(trigrams) - num_shared + 1 - num_unknown, 0)
        return sorted(known, key=lambda trigram: (self._frequency[trigram], trigram))[:num_rarest]


def _trigrams(normalized: str) -> frozenset[str]:
    """Three consecutive words each; fewer words are one, so short texts match as a whole."""
    words = normalized.split(" ")
    triples = zip(words, words[1:], words[2:], strict=False)
    return frozenset(map(" ".join, triples)) or frozenset([normalized])


def _prompt(frequency: Mapping[str, int], num_questions: int) -> frozenset[str]:
    if num_questions < MIN_QUESTIONS_WITH_PROMPT:
        return frozenset()
    return frozenset(
        trigram for trigram, count in frequency.items() if count > PROMPT_SHARE * num_questions
    )


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    num_shared = len(one & other)
    return num_shared / (len(one) + len(other) - num_shared)


def _rows_by_words(texts: Sequence[str]) -> dict[str, list[int]]:
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for row, text in enumerate(texts):
        rows[normalize(text)].append(row)
    return dict(rows)


def _num_rows(rows: Mapping[str, list[int]], questions: Iterable[str]) -> int:
    return sum(len(rows[question]) for question in questions)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_EXAMPLE_CHARS else f"{text[: MAX_EXAMPLE_CHARS - 1]}…"

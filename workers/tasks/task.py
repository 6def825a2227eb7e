"""What a benchmark is made of: questions, the scorer of answers, and options to be scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import BinaryIO, Literal, Protocol

from workers.rows import RowError, Turn
from workers.tasks.accuracy import AnswerMetric
from workers.tasks.evaluation_rows import EvaluationRow, iter_evaluation_rows, read_evaluation_row

Metric = Literal["accuracy", "f1", "acc", "acc_norm"]
"""`accuracy` and `f1` are of answers; `acc` and `acc_norm` of the options' log-likelihoods."""

LikelihoodMetric = Literal["acc", "acc_norm"]
"""Whether the likeliest option is right: by summed log-likelihood, or by that per character."""


class Scorer(Protocol):
    """How the answer is read from a text, and compared with the gold answer."""

    @property
    def metric(self) -> AnswerMetric:
        """What the mean of its scores is called."""

    def extract(self, answer: str) -> str | None:
        """What is compared, read from a model's answer; None if there is nothing of the kind."""

    def score(self, answer: str, gold: str) -> float:
        """How right a model's answer is, from 0 to 1."""

    def check_gold(self, gold: str) -> None:
        """Raise ValueError, with what to do, if no answer could be right."""


@dataclass(frozen=True)
class Option:
    """One option of a question, to be scored by its log-likelihood."""

    context: str
    """What the model reads; no chat template belongs around it."""

    continuation: str
    """The text whose log-likelihood is summed, given the context; it begins with a blank."""

    text: str
    """The option itself; `acc_norm` divides by its length in characters."""


@dataclass(frozen=True)
class Choices:
    """The options of a question."""

    options: tuple[Option, ...]

    gold: int
    """Index of the right one."""


@dataclass(frozen=True)
class Question:
    """A row of a benchmark, ready to be asked and scored."""

    turns: tuple[Turn, ...]
    """The conversation that the model answers; ends with the user's turn."""

    golds: tuple[str, ...]
    """Answers that are right; the best score over them counts."""

    demonstration: str
    """The row's own answer, as it stands in the prompt where the row is an example."""

    choices: Choices | None = None
    """The options in log-likelihood form, where the task has one."""

    line: int = 0
    """Line of the row in its file, from 1."""

    @property
    def messages(self) -> list[dict[str, str]]:
        """The conversation as `workers.data.render` takes it."""
        return [{"role": turn.role, "content": turn.content} for turn in self.turns]


@dataclass(frozen=True)
class Task:
    """A benchmark: how its rows are asked and scored."""

    name: str

    scorer: Scorer

    parse_choices: Callable[[str, str], Choices] | None = None
    """From the prompt and the gold answer; raises ValueError that says what is wrong."""

    likelihood_metrics: tuple[LikelihoodMetric, ...] = ()
    """Those that lm-evaluation-harness reports for the benchmark; none without choices."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Everything that can be reported: of answers, then of log-likelihoods."""
        return (self.scorer.metric, *self.likelihood_metrics)

    def question(self, fields: Mapping[str, object], line: int = 1) -> Question:
        """Read one row.

        Args:
            fields: The row as JSON has it; see `workers.tasks.evaluation_rows`.
            line: Number that an error names.

        Raises:
            RowError: If a field is missing or is nothing that the task can score.
        """
        return self._ask(read_evaluation_row(fields, line), line)

    def questions(self, file: BinaryIO) -> Iterator[Question]:
        """Read the rows of a file of JSON lines, plain or gzip.

        Raises:
            RowError: At the first row that is not valid, or if the file has no row.
        """
        for line, row in iter_evaluation_rows(file):
            yield self._ask(row, line)

    def score(self, answer: str, question: Question) -> float:
        """How right a model's answer is, from 0 to 1."""
        return max(self.scorer.score(answer, gold) for gold in question.golds)

    def _ask(self, row: EvaluationRow, line: int) -> Question:
        golds = row.golds or (self._gold_in(row.demonstration, line),)
        for gold in golds:
            try:
                self.scorer.check_gold(gold)
            except ValueError as error:
                raise RowError(line, "answer", str(error)) from None
        question = Question(row.turns, golds, row.demonstration, line=line)
        if self.parse_choices is None:
            return question
        try:
            choices = self.parse_choices(row.turns[-1].content, golds[0])
        except ValueError as error:
            raise RowError(line, "instruction", str(error)) from None
        return replace(question, choices=choices)

    def _gold_in(self, demonstration: str, line: int) -> str:
        gold = self.scorer.extract(demonstration)
        if gold is None:
            raise RowError(
                line,
                "output",
                f"{demonstration[:80]!r} holds no answer that this task's scorer reads; give the "
                'row a field "answer"',
            )
        return gold

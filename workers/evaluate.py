"""Running tasks on a model and its adapters: every row asked, answered, scored and written down.

Rows that the file of predictions holds already are skipped, so an evaluation that was killed goes
on where it was. Runs without Ray: `shard` says which rows are this process's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyplora.tuner.layer import BASE_ROW
from workers.data import encode, end_of_turn_id, render
from workers.decoding import BatchLimits, Prompt
from workers.errors import AdapterUnusableError, DataInvalidError, RowTooLongError
from workers.evaluation_result import EvaluationResult, summarize_predictions
from workers.generate import MAX_NEW_TOKENS, answer_prompts, answer_text, bounded_prompts
from workers.option_likelihood import (
    OptionQuestion,
    ScoredOption,
    check_lengths,
    encode_choices,
    log_likelihoods,
)
from workers.predictions import (
    Mode,
    Prediction,
    PredictionFile,
    PredictionKey,
    digest_of,
    row_digest,
)
from workers.tasks.few_shot import with_shots
from workers.tasks.likelihood import score_choices
from workers.tasks.task import Metric, Question, Task

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class TaskQuestions:
    """A task, and what it asks."""

    task: Task

    questions: Sequence[Question]

    shots: Sequence[Question] = ()
    """Examples that stand before each question; see `workers.tasks.few_shot.draw_shots`."""


@dataclass(frozen=True)
class Shard:
    """One process's part of the rows: every `count`-th, from `index` on."""

    index: int = 0
    count: int = 1

    def has(self, row: int) -> bool:
        """Whether a row is this process's."""
        return row % self.count == self.index


@dataclass(frozen=True)
class Progress:
    """How far an evaluation is."""

    num_done: int
    """Rows answered, each model's counted, earlier attempts included."""

    num_rows: int
    """Rows of the shard, each model's counted."""

    num_tokens: int = 0
    """New tokens, or tokens that were scored, of this attempt."""

    seconds: float = 0.0
    """Time that this attempt has taken for them."""

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens a second in this attempt; None if it has answered nothing."""
        return self.num_tokens / self.seconds if self.num_tokens and self.seconds else None


@dataclass(frozen=True)
class EvaluationMethod:
    """How models are asked."""

    mode: Mode = "generation"
    """For an answer, by the log-likelihoods of options, or by that of each row's own answer with
    the token that ends it."""

    max_new_tokens: int = MAX_NEW_TOKENS
    """Most tokens of an answer."""

    limits: BatchLimits = field(default_factory=BatchLimits)
    """What fits in memory; decides nothing about the answers."""


def evaluate(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[TaskQuestions],
    predictions: Path,
    *,
    adapters: Sequence[str] | Mapping[str, str] = (BASE_ROW,),
    method: EvaluationMethod | None = None,
    shard: Shard | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    stop_requested: Callable[[], bool] = lambda: False,
) -> EvaluationResult:
    """Ask every model every question, and sum up how right the answers are.

    Args:
        model: In evaluation mode; a base model, or one with adapters of one PEFT method.
        tokenizer: The base model's.
        tasks: No two of one name.
        predictions: File that each prediction is appended to; what it holds is not asked again.
        adapters: Names of the model's adapters to evaluate; "__base__" for the base model alone.
            Or these by what predictions are to call each.
        method: How models are asked.
        shard: Which rows are this process's; by default all.
        on_progress: Told after each prediction; must not block.
        stop_requested: Asked after each prediction; an evaluation that stops keeps what it has.

    Returns:
        The result over this shard's rows.

    Raises:
        ValueError: If two tasks or two adapters have one name.
        DataInvalidError: If options are to be scored and a question has none.
        RowTooLongError: If a prompt leaves nothing of the model's context for an answer.
        PredictionsUnusableError: If the file holds predictions for other questions.
        AdapterUnusableError: If the model has no adapter of a name.
    """
    names = [each.task.name for each in tasks]
    if len(set(names)) < len(names) or len(set(adapters)) < len(adapters):
        raise ValueError("a task or an adapter is named twice; name each once")
    models = adapters if isinstance(adapters, Mapping) else {name: name for name in adapters}
    run = _Run(model, tokenizer, method or EvaluationMethod())
    with PredictionFile(predictions) as file:
        rows = [row for each in tasks for row in run.rows_of(each, shard or Shard(), models)]
        waiting = [row for row in rows if not file.has(row.key, row.digest, row.prompt_digest)]
        num_done, num_tokens, started = len(rows) - len(waiting), 0, time.monotonic()
        on_progress(Progress(num_done, len(rows)))
        with closing(run.predictions(waiting)) as answered:
            for prediction in answered:
                file.add(prediction)
                num_done += 1
                num_tokens += prediction.num_new_tokens
                seconds = time.monotonic() - started
                on_progress(Progress(num_done, len(rows), num_tokens, seconds))
                if stop_requested():
                    break
        seconds = time.monotonic() - started
        known = [file.predictions[row.key] for row in rows if row.key in file.predictions]
    return summarize_predictions(
        known,
        is_complete=num_done == len(rows),
        tokens_per_s=num_tokens / seconds if num_tokens else None,
    )


@dataclass(frozen=True)
class _Row:
    """A question for one model."""

    task: Task
    model: str
    index: int
    question: Question
    digest: str
    prompt_digest: str
    mode: Mode
    asked: Prompt | OptionQuestion

    @property
    def key(self) -> PredictionKey:
        return self.task.name, self.model, self.index

    @property
    def identity(self) -> dict[str, Any]:
        """What a prediction says besides what the model made of the row."""
        return {
            "task": self.task.name,
            "model": self.model,
            "row": self.index,
            "row_digest": self.digest,
            "prompt_digest": self.prompt_digest,
            "mode": self.mode,
        }


@dataclass(frozen=True)
class _Run:
    """Turns questions into tokens, and what the model makes of these into predictions."""

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase
    method: EvaluationMethod

    def rows_of(
        self, asked: TaskQuestions, shard: Shard, adapters: Mapping[str, str]
    ) -> Iterator[_Row]:
        """This shard's rows of a task, for each model."""
        own = [index for index in range(len(asked.questions)) if shard.has(index)]
        questions = [with_shots(asked.questions[index], asked.shots) for index in own]
        try:
            as_tokens = self._as_tokens(questions)
        except (RowTooLongError, DataInvalidError) as error:
            raise type(error)(f"task {asked.task.name}: {error}") from error
        for model, adapter in adapters.items():
            for index, question, each in zip(own, questions, as_tokens, strict=True):
                yield _Row(
                    asked.task,
                    model,
                    index,
                    question,
                    row_digest(asked.questions[index]),
                    digest_of(self.method.mode, asdict(each)),
                    self.method.mode,
                    replace(each, adapter_name=adapter),
                )

    def predictions(self, rows: Sequence[_Row]) -> Generator[Prediction]:
        """Ask the model, task by task, since the prompts of one begin alike."""
        for _, group in groupby(rows, key=lambda row: row.task.name):
            of_task = list(group)
            if self.method.mode == "generation":
                yield from self._answer(of_task)
            else:
                yield from self._score(of_task)

    def _as_tokens(self, questions: Sequence[Question]) -> Sequence[Prompt | OptionQuestion]:
        match self.method.mode:
            case "generation":
                input_ids = self._contexts(questions)
                return bounded_prompts(self.model, input_ids, self.method.max_new_tokens)
            case "likelihood":
                return self._options(questions)
            case "gold":
                return self._golds(questions)

    def _contexts(self, questions: Sequence[Question]) -> list[list[int]]:
        return encode(
            self.tokenizer, [render(self.tokenizer, question.messages) for question in questions]
        )

    def _options(self, questions: Sequence[Question]) -> Sequence[OptionQuestion]:
        encoded = []
        for question in questions:
            if question.choices is None:
                raise DataInvalidError(
                    f"line {question.line} has no options to score; evaluate by generation"
                )
            encoded.append(encode_choices(self.tokenizer, question.choices))
        check_lengths(self.model, encoded)
        return encoded

    def _golds(self, questions: Sequence[Question]) -> Sequence[OptionQuestion]:
        """Each row's own answer and its end, in the tokens that training learns."""
        end = end_of_turn_id(self.tokenizer)
        answers = encode(self.tokenizer, [question.demonstration for question in questions])
        encoded = [
            OptionQuestion((ScoredOption((*context, *answer, end), len(context)),))
            for context, answer in zip(self._contexts(questions), answers, strict=True)
        ]
        check_lengths(self.model, encoded)
        return encoded

    def _answer(self, rows: Sequence[_Row]) -> Iterator[Prediction]:
        prompts = [row.asked for row in rows if isinstance(row.asked, Prompt)]
        for answer in answer_prompts(self.model, self.tokenizer, prompts, self.method.limits):
            row = rows[answer.index]
            text = answer_text(self.tokenizer, answer)
            yield Prediction(
                **row.identity,
                scores={row.task.scorer.metric: row.task.score(text, row.question)},
                answer=text,
                extracted=row.task.scorer.extract(text),
                num_prompt_tokens=len(prompts[answer.index].input_ids),
                num_new_tokens=len(answer.tokens),
                stop_reason=answer.stop_reason,
            )

    def _score(self, rows: Sequence[_Row]) -> Iterator[Prediction]:
        questions = [row.asked for row in rows if isinstance(row.asked, OptionQuestion)]
        limit = self.method.limits.max_pass_tokens
        for index, sums in log_likelihoods(self.model, questions, limit):
            row, options = rows[index], questions[index].options
            if not all(map(math.isfinite, sums)):
                raise AdapterUnusableError(
                    f"{row.model} gives log-likelihoods that are not finite for row {row.index} of "
                    f"{row.task.name}; try dtype float32"
                )
            yield Prediction(
                **row.identity,
                scores=_likelihood_scores(row, sums),
                log_likelihoods=sums,
                num_prompt_tokens=sum(option.num_context for option in options),
                num_new_tokens=sum(
                    len(option.input_ids) - option.num_context for option in options
                ),
            )


def _likelihood_scores(row: _Row, sums: Sequence[float]) -> dict[Metric, float]:
    if row.mode == "gold":
        return {}
    assert row.question.choices is not None
    every = score_choices(row.question.choices, sums)
    return {metric: every[metric] for metric in row.task.likelihood_metrics}

"""Every row that a model has answered, kept in a file of JSON lines as the answers come.

A killed evaluation has lost nothing but a half-written line: what starts again reads what is there
and answers the rest. Torch-free, so a report is made anywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

import pyarrow as pa
import pyarrow.parquet
from pydantic import Field, ValidationError

from workers.document import Document
from workers.errors import PredictionsUnusableError
from workers.tasks.task import Metric, Question

Mode = Literal["generation", "likelihood", "gold"]
"""Whether a model is asked for an answer, its options are scored by log-likelihood, or that of the
row's own answer is measured."""

PredictionKey = tuple[str, str, int]
"""Task, model and row: what a prediction is found by."""


class Prediction(Document):
    """What one model made of one row."""

    task: str
    """Name of the benchmark."""

    model: str
    """The adapter's name; "__base__" for the base model alone."""

    row: int = Field(ge=0)
    """Index of the question in its task."""

    row_digest: str
    """Of the question with its gold answers, without examples."""

    prompt_digest: str
    """Of what the model was given and how long it might answer: tokens, mode and bounds."""

    mode: Mode
    """How the model was asked."""

    scores: dict[Metric, float]
    """How right it is, from 0 to 1, by each metric of the mode; none of the mode "gold"."""

    answer: str | None = None
    """The answer; None where none was asked for."""

    extracted: str | None = None
    """What was read from the answer; None if nothing was found, or none was asked for."""

    log_likelihoods: tuple[float, ...] = ()
    """Of the options in their order, or of the row's own answer alone (nats, summed over tokens);
    none where an answer was asked for."""

    num_prompt_tokens: int = Field(ge=0)
    """Tokens that the model was given; of options, those of every context."""

    num_new_tokens: int = Field(ge=0)
    """Tokens of the answer; of options or the row's own answer, those that were scored."""

    stop_reason: Literal["end", "length"] | None = None
    """Whether the model ended its answer or was cut off; None where none was asked for."""

    @property
    def key(self) -> PredictionKey:
        """What it is found by."""
        return self.task, self.model, self.row


def row_digest(question: Question) -> str:
    """Digest of a question as its file has it."""
    turns = [(turn.role, turn.content) for turn in question.turns]
    return digest_of(turns, question.golds)


def questions_digest(row_digests: Sequence[str]) -> str:
    """Digest of a task's questions and gold answers in their order."""
    return digest_of(*row_digests)


def digest_of(*parts: object) -> str:
    """Digest of what JSON can write."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


class PredictionFile:
    """A file of predictions that grows; a context manager, which closes it.

    Args:
        path: The file, which may exist. One process writes it at a time.

    Raises:
        PredictionsUnusableError: If a line, other than one cut short at the end, is no prediction.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self.predictions = {each.key: each for each in _read_and_repair(path)}
        self._file = path.open("ab")

    def __enter__(self) -> PredictionFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def has(self, key: PredictionKey, row_digest: str, prompt_digest: str) -> bool:
        """Whether the row is answered already.

        Raises:
            PredictionsUnusableError: If it is, but was another question, or asked otherwise.
        """
        found = self.predictions.get(key)
        if found is None:
            return False
        if found.row_digest != row_digest:
            raise PredictionsUnusableError(
                f"{self._path} holds predictions for other questions: row {key[2]} of {key[0]} is "
                "not the one to be answered; give the same rows, or another file"
            )
        if found.prompt_digest != prompt_digest:
            raise PredictionsUnusableError(
                f"{self._path} holds a prediction for row {key[2]} of {key[0]} by {key[1]} that "
                "was asked otherwise: with other examples, mode, template, tokenizer or bounds; "
                "give the same ones, or another file"
            )
        return True

    def add(self, prediction: Prediction) -> None:
        """Append a prediction; it survives the end of this process."""
        self._file.write(prediction.model_dump_json().encode() + b"\n")
        self._file.flush()
        self.predictions[prediction.key] = prediction


def read_predictions(path: Path) -> list[Prediction]:
    """The predictions of a file; a line cut short at its end is left out.

    Raises:
        PredictionsUnusableError: If the file cannot be read or holds something else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PredictionsUnusableError(f"{path} cannot be read: {error}") from error
    predictions = []
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            predictions.append(Prediction.model_validate_json(line))
        except ValidationError as error:
            raise PredictionsUnusableError(
                f"line {number} of {path} is no prediction: {error.errors()[0]['msg']}; "
                "give a file that an evaluation wrote, or a new one"
            ) from error
    return predictions


def merge_predictions(shards: Iterable[Sequence[Prediction]]) -> list[Prediction]:
    """The predictions of all shards, in order of task, model and row.

    Raises:
        PredictionsUnusableError: If two shards answered a row otherwise.
    """
    merged: dict[PredictionKey, Prediction] = {}
    for prediction in (each for shard in shards for each in shard):
        known = merged.setdefault(prediction.key, prediction)
        if known != prediction:
            raise PredictionsUnusableError(
                f"row {prediction.row} of {prediction.task} by {prediction.model} is there twice "
                "with different predictions; merge the shards of one evaluation"
            )
    return [merged[key] for key in sorted(merged)]


def write_table(predictions: Sequence[Prediction], path: Path) -> None:
    """Write predictions as a Parquet table, a row each; a score of each metric has a column."""
    metrics = sorted({metric for each in predictions for metric in each.scores})
    rows = [_flat(each, metrics) for each in predictions]
    schema = pa.schema([*_SCHEMA, *(pa.field(metric, pa.float64()) for metric in metrics)])
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema=schema), path)


_SCHEMA = (
    pa.field("task", pa.string()),
    pa.field("model", pa.string()),
    pa.field("row", pa.int64()),
    pa.field("row_digest", pa.string()),
    pa.field("prompt_digest", pa.string()),
    pa.field("mode", pa.string()),
    pa.field("answer", pa.string()),
    pa.field("extracted", pa.string()),
    pa.field("log_likelihoods", pa.list_(pa.float64())),
    pa.field("num_prompt_tokens", pa.int64()),
    pa.field("num_new_tokens", pa.int64()),
    pa.field("stop_reason", pa.string()),
)


def _flat(prediction: Prediction, metrics: Sequence[Metric]) -> Mapping[str, object]:
    fields = prediction.model_dump(exclude={"scores"})
    return fields | {metric: prediction.scores.get(metric) for metric in metrics}


def _read_and_repair(path: Path) -> list[Prediction]:
    """Read what is whole, and cut off the line in which the writer was killed."""
    if not path.exists():
        return []
    predictions = read_predictions(path)
    with path.open("r+b") as file:
        file.truncate(path.read_bytes().rfind(b"\n") + 1)
        os.fsync(file.fileno())
    return predictions

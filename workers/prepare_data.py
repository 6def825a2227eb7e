"""From the sources that a job names to the examples it trains on, with a report on the way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from workers.data import Example
from workers.data_report import DataReport, build_report
from workers.errors import DataInvalidError, DataLeakedError, RowTooLongError
from workers.leakage import LeakageReport, find_duplicates, find_overlaps
from workers.rows import RowParser
from workers.seeds import derive_seed, permutation
from workers.sources import NumberedRow, read_rows
from workers.specs import DataSpec, HubDatasetSpec
from workers.tasks.evaluation_rows import parse_either_row
from workers.token_cache import tokenize_cached


@dataclass(frozen=True)
class PreparedData:
    """What a training reads."""

    train: list[Example]
    held_out: list[Example]
    report: DataReport


def prepare_data(
    spec: DataSpec,
    files: Mapping[str, Path],
    tokenizer: PreTrainedTokenizerBase,
    context_length: int | None,
) -> PreparedData:
    """Read, check, tokenize and divide the rows of a job.

    Args:
        spec: What the job asks for.
        files: Where uploaded files lie, by id.
        tokenizer: The base model's, with the chat template to use.
        context_length: Longest sequence of the base model in tokens; None for no bound.

    Raises:
        DataInvalidError: If a source or one of its rows cannot be read, or no row is left.
        DataLeakedError: If rows of an evaluation set are in the training data and the spec forbids.
        RowTooLongError: If a row is too long and the spec forbids.
        BaseModelUnusableError: If the chat template refuses a conversation.
    """
    bounds = (spec.max_length, context_length)
    max_length = min((bound for bound in bounds if bound is not None), default=None)

    columns = {str(field): name for field, name in spec.columns.items()}

    def read(
        source: str | HubDatasetSpec, name: str, parse: RowParser | None = None
    ) -> list[NumberedRow]:
        return read_rows(source, name=name, files=files, columns=columns, parse=parse)

    def questions_of(name: str, source: str | HubDatasetSpec) -> list[str]:
        # No answer of an evaluation set is learned, so its rows need no output.
        rows = read(source, f"data.evaluation_sets.{name}", parse_either_row)
        return [_said_by("user", row) for row in rows]

    rows = read(spec.train, "data.train")
    questions = [_said_by("user", row) for row in rows]
    duplicates = find_duplicates(questions, [_said_by("assistant", row) for row in rows])
    leakage = find_overlaps(
        questions,
        {name: questions_of(name, source) for name, source in spec.evaluation_sets.items()},
    )
    kept = _without_leaks(rows, leakage, spec)
    examples, num_cut = _fit(tokenize_cached(kept, tokenizer, spec.loss_on), max_length, spec)
    too_long = len({line for line, _ in kept}) - len({example.line for example in examples})
    if spec.validation is not None:
        rows_held_out = read(spec.validation, "data.validation")
        held_out, _ = _fit(
            tokenize_cached(rows_held_out, tokenizer, spec.loss_on),
            max_length,
            spec,
            name="data.validation",
        )
    else:
        examples, held_out = split_held_out(examples, spec.validation_rows, spec.seed)
    if not examples:
        raise DataInvalidError(
            "data.train: no row is left to train on after those that are too long or leaked; "
            "see data.long_rows and data.leakage"
        )
    report = build_report(
        lengths=[example.num_tokens for example in examples],
        answer_lengths=[example.num_answer_tokens for example in examples],
        duplicates=duplicates,
        leakage=leakage,
        num_held_out=len(held_out),
        num_truncated=num_cut,
        num_dropped_too_long=too_long,
        num_dropped_leaked=len(rows) - len(kept),
    )
    return PreparedData(examples, held_out, report)


def split_held_out(
    examples: Sequence[Example], num_held_out: int, seed: int
) -> tuple[list[Example], list[Example]]:
    """Draw held-out rows by seed; both parts keep the order of the file.

    Returns:
        The rows to train on and the held-out rows.

    Raises:
        DataInvalidError: If no row would be left to train on.
    """
    if num_held_out and num_held_out >= len(examples):
        raise DataInvalidError(
            f"data.validation_rows is {num_held_out} and there are {len(examples)} rows in all, "
            "so none is left to train on; hold out fewer or give more"
        )
    order = permutation(len(examples), derive_seed(seed, "held-out"))
    held_out = set(order[:num_held_out])
    return (
        [example for index, example in enumerate(examples) if index not in held_out],
        [example for index, example in enumerate(examples) if index in held_out],
    )


def _said_by(role: str, row: NumberedRow) -> str:
    """Everything that one side says in a row."""
    return "\n".join(turn.content for turn in row[1].turns if turn.role == role)


def _without_leaks(
    rows: Sequence[NumberedRow], leakage: LeakageReport, spec: DataSpec
) -> list[NumberedRow]:
    if spec.leakage == "fail" and leakage.train_rows:
        line = rows[min(leakage.train_rows)][0]
        hit = [name for name, found in leakage.overlaps.items() if found.num_evaluation_hit]
        raise DataLeakedError(
            f"data.train: {len(leakage.train_rows)} rows, first line {line}, are rows of "
            f"data.evaluation_sets {', '.join(hit)}, exactly or nearly; leave them out, or set "
            "data.leakage to drop"
        )
    dropped = leakage.train_rows if spec.leakage == "drop" else frozenset()
    return [row for index, row in enumerate(rows) if index not in dropped]


def _fit(
    examples: Sequence[Example],
    max_length: int | None,
    spec: DataSpec,
    name: str = "data.train",
) -> tuple[list[Example], int]:
    """Deal with long rows as the spec says.

    Returns:
        The examples, and how many of them were cut.
    """
    if max_length is None:
        return list(examples), 0
    too_long = [example for example in examples if example.num_tokens > max_length]
    if too_long and spec.long_rows == "fail":
        first = too_long[0]
        raise RowTooLongError(
            f"{name}, line {first.line} has {first.num_tokens} tokens and at most {max_length} are "
            f"allowed (the smaller of data.max_length and the base model's context); "
            f"{len(too_long)} of {len(examples)} rows are too long: shorten them, or set "
            "data.long_rows to truncate or drop"
        )
    if spec.long_rows == "drop":
        return [example for example in examples if example.num_tokens <= max_length], 0
    cut = [example.cut(max_length) for example in examples]
    learnable = [example for example in cut if example.is_answer.any()]
    num_cut = sum(
        short.num_tokens < long.num_tokens and bool(short.is_answer.any())
        for short, long in zip(cut, examples, strict=True)
    )
    return learnable, num_cut

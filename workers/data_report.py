"""The report on a job's rows that is written before training: sizes, what is left out, leakage."""

from collections.abc import Mapping, Sequence

from pydantic import Field

from workers.document import Document
from workers.leakage import Duplicates, LeakageReport, Overlap


class Lengths(Document):
    """Percentiles of lengths in tokens, by nearest rank: each is the length of some row."""

    minimum: int
    """Shortest."""

    p5: int
    """5 percent of the rows are at most this long."""

    p25: int
    """25 percent are."""

    p50: int
    """Half are: the median."""

    p75: int
    """75 percent are."""

    p95: int
    """95 percent are."""

    p99: int
    """99 percent are."""

    maximum: int
    """Longest."""


class DataReport(Document):
    """What a job is about to train on."""

    num_rows: int = Field(ge=0)
    """Rows to train on, after all that were dropped or held out."""

    num_tokens: int = Field(ge=0)
    """Tokens of these rows, prompts and answers."""

    num_answer_tokens: int = Field(ge=0)
    """Tokens of these rows that count in the loss."""

    lengths: Lengths | None
    """Tokens of a row, prompt and answer; null without rows."""

    answer_lengths: Lengths | None
    """Tokens of an answer; null without rows."""

    num_held_out: int = Field(ge=0)
    """Rows held out for the evaluation loss."""

    num_truncated: int = Field(ge=0)
    """Rows to train on that were cut to the longest length allowed."""

    num_dropped_too_long: int = Field(ge=0)
    """Rows left out because they are longer than allowed."""

    num_dropped_leaked: int = Field(ge=0)
    """Rows left out because an evaluation set holds their question, exactly or nearly."""

    duplicates: Duplicates
    """Rows of the training file that repeat an earlier one."""

    leakage: Mapping[str, Overlap]
    """What the training file, before any row is dropped, shares with each evaluation set."""

    @property
    def trains_on_leaks(self) -> bool:
        """Whether questions of an evaluation set, exactly or nearly, are trained on."""
        is_shared = any(found.num_evaluation_hit for found in self.leakage.values())
        return is_shared and not self.num_dropped_leaked


def build_report(
    *,
    lengths: Sequence[int],
    answer_lengths: Sequence[int],
    duplicates: Duplicates,
    leakage: LeakageReport,
    num_held_out: int = 0,
    num_truncated: int = 0,
    num_dropped_too_long: int = 0,
    num_dropped_leaked: int = 0,
) -> DataReport:
    """Put the report together.

    Args:
        lengths: Tokens of each row to train on, prompt and answer.
        answer_lengths: Tokens of each of these rows that count in the loss.
        duplicates: What `find_duplicates` found in the training file.
        leakage: What `find_overlaps` found in it.
        num_held_out: Rows held out for the evaluation loss.
        num_truncated: Rows cut to the longest length allowed.
        num_dropped_too_long: Rows left out because they are longer.
        num_dropped_leaked: Rows left out because an evaluation set holds their question.
    """
    assert len(lengths) == len(answer_lengths)
    return DataReport(
        num_rows=len(lengths),
        num_tokens=sum(lengths),
        num_answer_tokens=sum(answer_lengths),
        lengths=percentiles(lengths),
        answer_lengths=percentiles(answer_lengths),
        num_held_out=num_held_out,
        num_truncated=num_truncated,
        num_dropped_too_long=num_dropped_too_long,
        num_dropped_leaked=num_dropped_leaked,
        duplicates=duplicates,
        leakage=leakage.overlaps,
    )


def percentiles(lengths: Sequence[int]) -> Lengths | None:
    """Percentiles of lengths in tokens; None of none."""
    if not lengths:
        return None
    ascending = sorted(lengths)

    def at(percent: int) -> int:
        rank = -(-percent * len(ascending) // 100)
        return ascending[rank - 1]

    return Lengths(
        minimum=ascending[0],
        p5=at(5),
        p25=at(25),
        p50=at(50),
        p75=at(75),
        p95=at(95),
        p99=at(99),
        maximum=ascending[-1],
    )


def summary(report: DataReport) -> str:
    """One line for a job's events: sizes, what was left out, duplicates, leakage."""
    parts = [_size(report)]
    counts = {
        "held out": report.num_held_out,
        "truncated": report.num_truncated,
        "dropped as too long": report.num_dropped_too_long,
        "dropped as leaked": report.num_dropped_leaked,
    }
    parts += [f"{num_rows:,} {what}" for what, num_rows in counts.items() if num_rows]
    if num_repeats := report.duplicates.num_rows:
        parts.append(
            f"{num_repeats:,} {'repeats' if num_repeats == 1 else 'repeat'} an earlier row"
        )
    shared = {name: found for name, found in report.leakage.items() if found.num_evaluation_hit}
    parts += [
        _leak(name, found, is_dropped=report.num_dropped_leaked > 0)
        for name, found in shared.items()
    ]
    if clean := [name for name in report.leakage if name not in shared]:
        sets = "set" if len(clean) == 1 else "sets"
        parts.append(f"no question of evaluation {sets} {', '.join(clean)} is in the training data")
    return "; ".join(parts)


def _size(report: DataReport) -> str:
    sizes = f"{_counted(report.num_rows, 'row')}, {_counted(report.num_tokens, 'token')}"
    if report.lengths is None:
        return sizes
    return f"{sizes} (median {report.lengths.p50:,}, longest {report.lengths.maximum:,})"


def _leak(name: str, found: Overlap, *, is_dropped: bool) -> str:
    is_one = found.num_evaluation_hit == 1
    verb = ("was" if is_one else "were") if is_dropped else ("is" if is_one else "are")
    return (
        f"{_counted(found.num_evaluation_hit, 'question')} of evaluation set {name} {verb} in the "
        f"training data ({found.num_evaluation_exact:,} exactly)"
    )


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"

"""What a rank tells of a job."""

from typing import cast

import pytest

from jobs.ray_reporter import RayReporter
from jobs.tickets import RunTag
from jobs.tracking import RunWriter
from workers.data_report import DataReport, build_report, summary
from workers.leakage import find_duplicates, find_overlaps


class Writer:
    """Stands for the writer of a run; keeps what it is given, in order."""

    def __init__(self) -> None:
        self.written: list[tuple[str, str]] = []

    def write_document(self, path: str, text: str) -> None:
        self.written.append((path, text))

    def write_tag(self, key: str, value: str) -> None:
        self.written.append((key, value))


@pytest.mark.parametrize(
    ("evaluated", "num_dropped", "level"),
    [("2 + 2?", 0, "warning"), ("2 + 2?", 1, "info"), ("3 + 3?", 0, "info")],
)
def test_the_run_gets_the_report_on_its_rows_and_a_warning_if_leaked_questions_are_trained_on(
    evaluated: str, num_dropped: int, level: str
) -> None:
    report = build_report(
        lengths=[4],
        answer_lengths=[1],
        duplicates=find_duplicates(["2 + 2?"], ["4"]),
        leakage=find_overlaps(["2 + 2?"], {"exam": [evaluated]}),
        num_dropped_leaked=num_dropped,
    )
    writer = Writer()

    RayReporter(cast("RunWriter", writer), None).data_report(report)

    (path, text), *tags = writer.written
    assert (path, DataReport.model_validate_json(text)) == ("data_report.json", report)
    assert tags == [
        (RunTag.DATA_LEVEL, level),
        (RunTag.DATA_SUMMARY, summary(report)),
    ], "who sees the summary sees the level"

"""What a rank tells of a job."""

from collections.abc import Mapping
from typing import cast

import pytest

from jobs.ray_reporter import RayReporter
from jobs.specs import RunTag
from jobs.tracking import RunWriter
from workers.data_report import DataReport, build_report, summary
from workers.leakage import find_duplicates, find_overlaps


class Documents:
    """Stands for the writer of a run; keeps what it is given."""

    def __init__(self) -> None:
        self.written: list[tuple[str, str, Mapping[str, str]]] = []

    def write_document(self, path: str, text: str, tags: Mapping[str, str]) -> None:
        self.written.append((path, text, tags))


@pytest.mark.parametrize(("evaluated", "level"), [("2 + 2?", "warning"), ("3 + 3?", "info")])
def test_the_run_is_tagged_with_the_summary_of_its_rows_and_a_warning_if_questions_leaked(
    evaluated: str, level: str
) -> None:
    report = build_report(
        lengths=[4],
        answer_lengths=[1],
        duplicates=find_duplicates(["2 + 2?"], ["4"]),
        leakage=find_overlaps(["2 + 2?"], {"exam": [evaluated]}),
    )
    documents = Documents()

    RayReporter(cast("RunWriter", documents), None).data_report(report)

    ((path, text, tags),) = documents.written
    assert (path, DataReport.model_validate_json(text)) == ("data_report.json", report)
    assert list(tags.items()) == [
        (RunTag.DATA_LEVEL, level),
        (RunTag.DATA_SUMMARY, summary(report)),
    ], "who sees the summary sees the level"

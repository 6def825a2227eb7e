"""What a fine-tune measured, as the file that OpenAI's clients look for: a table of its losses.

The file is not stored: it is made of the job's metrics when it is asked for.
"""

import csv
import io
import math
import re
from typing import Annotated

from fastapi import Depends

from service.dependencies import JobMetricsPart
from service.errors import DataFileNotFoundError
from service.openai.answers import FileObjectRead
from service.openai.fine_tunes import FineTunesPart
from service.openai.views import result_file_ids
from service.series import Series
from workers.specs import RunMetric

_FORM = re.compile(r"result-([0-9a-f]{16})")
_COLUMNS = {RunMetric.LOSS: "train_loss", RunMetric.EVAL_LOSS: "full_valid_loss"}
_MAX_STEPS = 100_000


def is_result_file(file_id: str) -> bool:
    """Whether an id is that of a file made of metrics; no upload has such an id."""
    return _FORM.fullmatch(file_id) is not None


class ResultFiles:
    """The files of a caller's fine-tunes."""

    def __init__(self, fine_tunes: FineTunesPart, metrics: JobMetricsPart) -> None:
        self._fine_tunes = fine_tunes
        self._metrics = metrics

    async def read(self, file_id: str) -> tuple[FileObjectRead, bytes]:
        """A file and its content.

        Raises:
            DataFileNotFoundError: If the job has none.
            JobNotFoundError: If there is no such job.
            MlflowUnavailableError: If MLflow does not answer.
            RunNotFoundError: If someone has deleted the job's run.
        """
        job = await self._fine_tunes.get(file_id.replace("result-", "job-"))
        if file_id not in result_file_ids(job) or job.finished_at is None:
            raise DataFileNotFoundError(f"{job.id} has no results: it has not ended, or not begun")
        page = await self._metrics.page(
            job.id,
            list(_COLUMNS),
            trial=None,
            max_points=_MAX_STEPS,
            limit=len(_COLUMNS),
            after=None,
        )
        content = _table({name: page.series[key] for key, name in _COLUMNS.items()})
        record = FileObjectRead(
            id=file_id,
            bytes=len(content),
            created_at=int(job.finished_at.timestamp()),
            filename="step_metrics.csv",
            purpose="fine-tune-results",
            status="processed",
            status_details=None,
        )
        return record, content


ResultFilesPart = Annotated[ResultFiles, Depends()]


def _table(columns: dict[str, Series]) -> bytes:
    """A line for each step that has any value; empty where one is missing or no number."""
    cells = {
        name: dict(zip(series.steps, series.values, strict=True))
        for name, series in columns.items()
    }
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["step", *columns])
    for step in sorted(set().union(*cells.values())):
        values = [each.get(step, math.nan) for each in cells.values()]
        lines.writerow([step, *(value if math.isfinite(value) else "" for value in values)])
    return text.getvalue().encode()

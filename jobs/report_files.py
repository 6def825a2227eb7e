"""The files of a job's report: as data, as a page to read, its plots, and what a kind adds."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient

from jobs.plot import Plot
from workers.document import Document


@contextmanager
def report_files(
    client: MlflowClient,
    run_id: str,
    kind: str,
    report: Document,
    page: str,
    plots: Sequence[Plot] = (),
) -> Iterator[Path]:
    """Write a report, lend its folder for further files, and log them all if the context ends well.

    Args:
        client: Connected to the tracking server that holds the run.
        run_id: The job's run.
        kind: Of the job; the folder among the run's artifacts, where the service looks.
        report: The whole as data.
        page: The same for people, as Markdown.
        plots: Each becomes an image and a page of its own.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "report.json").write_text(report.model_dump_json(indent=2) + "\n", "utf-8")
        (folder / "report.md").write_text(page, "utf-8")
        for plot in plots:
            (folder / f"{plot.name}.png").write_bytes(plot.png())
            (folder / f"{plot.name}.html").write_text(plot.html(), "utf-8")
        yield folder
        client.log_artifacts(run_id, str(folder), kind)

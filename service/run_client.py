"""The part of the client that is about what a job's run has left: metrics, checkpoints, files."""

from collections.abc import Sequence
from typing import BinaryIO
from urllib.parse import quote

from service.answers import Page
from service.connection import Connection
from service.metric_answers import MetricsRead
from service.run_answers import ArtifactRead, CheckpointRead

_METRICS_ANSWER_S = 180.0
"""MLflow takes a second and more for each ten thousand points of a long run."""
_DOWNLOAD_SILENCE_S = 600.0
"""The service fetches a file from MLflow before it sends the first byte of it."""


class RunClient:
    """The runs of jobs; every method raises a `ClientError`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def metrics(
        self,
        job_id: str,
        keys: Sequence[str] = (),
        *,
        trial: str | None = None,
        max_points: int = 500,
        limit: int = 20,
        after: str | None = None,
    ) -> MetricsRead:
        """Return metrics with their series, by name.

        Args:
            job_id: The job.
            keys: The metrics, such as train/loss; none for all.
            trial: A trial of a search, or a training of a comparison; None for the job itself.
            max_points: Most points of each series.
            limit: Most series.
            after: Last key of the part before.
        """
        return self._connection.get(
            MetricsRead,
            f"{_path(job_id)}/metrics",
            timeout_s=_METRICS_ANSWER_S,
            key=list(keys) or None,
            trial=trial,
            max_points=max_points,
            limit=limit,
            after=after,
        )

    def checkpoints(
        self, job_id: str, *, limit: int = 20, after: str | None = None
    ) -> Page[CheckpointRead]:
        """Return checkpoints, newest first; `after` is the last id of the page before."""
        path = f"{_path(job_id)}/checkpoints"
        return self._connection.get(Page[CheckpointRead], path, limit=limit, after=after)

    def artifacts(
        self, job_id: str, *, limit: int = 200, after: str | None = None
    ) -> Page[ArtifactRead]:
        """Return files by path; `after` is the last path of the page before."""
        path = f"{_path(job_id)}/artifacts"
        return self._connection.get(Page[ArtifactRead], path, limit=limit, after=after)

    def download(self, job_id: str, path: str, file: BinaryIO) -> None:
        """Write one of the files to a local one."""
        self._connection.download(
            f"{_path(job_id)}/artifacts/{quote(path)}", file, silence_s=_DOWNLOAD_SILENCE_S
        )


def _path(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"

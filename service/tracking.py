"""The runs of the MLflow server.

Beside `service.model_registry` and `service.metric_histories` all that talks to MLflow.
"""

import logging
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from mlflow.entities import LifecycleStage, Param, Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_SOURCE_NAME, MLFLOW_SOURCE_TYPE

from jobs.tickets import RunTag
from service.boundaries import NO_TAGS, Artifact, History, RunRef, RunReport, RunStatus
from service.metric_histories import MetricHistories
from service.mlflow_server import MlflowServer, moment

logger = logging.getLogger(__name__)

_PARAMS_PER_BATCH = 100
_RUNS_PER_PAGE = 1000
_MAX_PARAM_LENGTH = 6000


class MlflowRuns:
    """The runs of one experiment.

    Args:
        server: Where they are.
        experiment: Name of the experiment, made on first use.
    """

    def __init__(self, server: MlflowServer, experiment: str) -> None:
        self._experiment = experiment
        self._client = server.client
        self._call = server.call
        self._histories = MetricHistories(server.uri)

    async def ping(self) -> None:
        """Ask for one experiment, which takes the server's database and its login."""
        await self._call(lambda: self._client.search_experiments(max_results=1))

    async def read(self, run_id: str) -> RunReport | None:
        """A run, unless someone has deleted it."""

        def read() -> RunReport | None:
            try:
                run = self._client.get_run(run_id)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return None
                raise
            return _report(run) if run.info.lifecycle_stage == LifecycleStage.ACTIVE else None

        return await self._call(read)

    async def find(self, job_id: str) -> RunReport | None:
        """The run that carries the job's tag, or None; doubles of it are deleted."""

        def find() -> RunReport | None:
            first, *doubles = self._runs_of(job_id) or [None]
            self._delete(job_id, doubles)
            return None if first is None else _report(first)

        return await self._call(find)

    async def discard_doubles(self, job_id: str, run_id: str) -> None:
        """Delete every run that carries the job's tag, but for one and the runs below it."""

        def discard() -> None:
            runs = self._runs_of(job_id)
            self._delete(job_id, [run for run in runs if run.info.run_id != run_id])

        await self._call(discard)

    async def children(self, parent: RunRef) -> Sequence[RunReport]:
        """The runs below a run, oldest first."""

        def search() -> Sequence[RunReport]:
            runs: list[Run] = []
            token: str | None = None
            while True:
                page = self._client.search_runs(
                    [parent.experiment_id],
                    filter_string=f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent.run_id}'",
                    order_by=["attributes.start_time ASC"],
                    max_results=_RUNS_PER_PAGE,
                    page_token=token,
                )
                runs += page
                token = page.token
                if not token:
                    return [_report(run) for run in runs]

        return await self._call(search)

    async def create(
        self, job_id: str, name: str, source: str, tags: Mapping[str, str] = NO_TAGS
    ) -> RunRef:
        """Open a run that carries the job's tag from its first moment."""

        def create() -> RunRef:
            run = self._client.create_run(
                self._experiment_id(),
                run_name=name,
                tags={
                    **tags,
                    RunTag.JOB_ID: job_id,
                    MLFLOW_SOURCE_TYPE: "JOB",
                    MLFLOW_SOURCE_NAME: source,
                },
            )
            return _report(run).ref

        return await self._call(create)

    async def describe(
        self, run_id: str, parameters: Mapping[str, str], document: Mapping[str, object]
    ) -> None:
        """Log parameters, and the document as the artifact job.json."""

        def describe() -> None:
            params = [Param(key, value[:_MAX_PARAM_LENGTH]) for key, value in parameters.items()]
            for start in range(0, len(params), _PARAMS_PER_BATCH):
                batch = params[start : start + _PARAMS_PER_BATCH]
                self._client.log_batch(run_id, params=batch)
            self._client.log_dict(run_id, dict(document), "job.json")

        await self._call(describe)

    async def set_tag(self, run_id: str, tag: str, value: str) -> None:
        """Tell who watches a run something."""
        await self._call(lambda: self._client.set_tag(run_id, tag, value))

    async def set_status(self, run_id: str, status: RunStatus) -> None:
        """Show a run as running, or as scheduled while its job is paused."""
        await self._call(lambda: self._client.update_run(run_id, status))

    async def end(self, run_id: str, status: RunStatus) -> None:
        """Close a run."""
        await self._call(lambda: self._client.set_terminated(run_id, status))

    async def save_log(self, run_id: str, attempt: int, text: str) -> None:
        """Keep a driver's log with the run."""
        await self._call(lambda: self._client.log_text(run_id, text, _log_path(attempt)))

    async def read_log(self, run_id: str, attempt: int) -> str | None:
        """A driver's log as it was kept."""

        def read() -> str | None:
            path = _log_path(attempt)
            kept = self._client.list_artifacts(run_id, str(Path(path).parent))
            if path not in {artifact.path for artifact in kept}:
                return None
            return self._download(run_id, path).decode(errors="replace")

        return await self._call(read)

    async def history(self, run_id: str, key: str, most_points: int) -> History:
        """What was logged of a metric; nothing if it was not."""
        return await self._call(lambda: self._histories.read(run_id, key, most_points))

    async def values_at(self, run_id: str, key: str, steps: Collection[int]) -> Mapping[int, float]:
        """The last value of a metric at each of some steps where it has one."""
        return await self._call(lambda: self._histories.values_at(run_id, key, steps))

    async def artifacts(self, run_id: str, folder: str) -> Sequence[Artifact]:
        """The files of a folder, not those of folders in it; none if there is no such folder."""
        return [each for each in await self.entries(run_id, folder) if not each.is_folder]

    async def entries(self, run_id: str, folder: str) -> Sequence[Artifact]:
        """The files and the folders of a folder; the top one is ""."""

        def find() -> Sequence[Artifact]:
            found = self._client.list_artifacts(run_id, folder or None)
            return [Artifact(each.path, each.file_size or 0, each.is_dir) for each in found]

        return await self._call(find)

    async def download(self, run_id: str, path: str, folder: Path) -> Path:
        """Copy a file that `entries` has listed into a local folder, and say where it is."""
        return await self._call(
            lambda: Path(self._client.download_artifacts(run_id, path, str(folder)))
        )

    async def read_artifact(self, run_id: str, path: str) -> bytes:
        """The content of a file that `artifacts` has listed."""
        return await self._call(lambda: self._download(run_id, path))

    def _runs_of(self, job_id: str) -> list[Run]:
        """The runs that carry a job's tag, oldest first, without the trials, which carry it too."""
        experiment = self._client.get_experiment_by_name(self._experiment)
        if experiment is None:
            return []
        runs = self._client.search_runs(
            [experiment.experiment_id],
            filter_string=f"tags.`{RunTag.JOB_ID}` = '{job_id}'",
            order_by=["attributes.start_time ASC"],
        )
        return [run for run in runs if MLFLOW_PARENT_RUN_ID not in run.data.tags]

    def _delete(self, job_id: str, doubles: Sequence[Run]) -> None:
        for double in doubles:
            logger.warning("deleting %s, a second run of %s", double.info.run_id, job_id)
            self._client.delete_run(double.info.run_id)

    def _download(self, run_id: str, path: str) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            return Path(self._client.download_artifacts(run_id, path, folder)).read_bytes()

    def _experiment_id(self) -> str:
        experiment = self._client.get_experiment_by_name(self._experiment)
        if experiment is None:
            return str(self._client.create_experiment(self._experiment))
        if experiment.lifecycle_stage != LifecycleStage.ACTIVE:
            self._client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)


def _report(run: Run) -> RunReport:
    status = RunStatus(run.info.status)
    # A run that was opened again keeps the time at which it was closed.
    ended_ms = run.info.end_time if status.is_ended else None
    return RunReport(
        ref=RunRef(run.info.run_id, run.info.experiment_id),
        status=status,
        tags=run.data.tags,
        metrics=run.data.metrics,
        started_at=moment(run.info.start_time),
        ended_at=moment(ended_ms),
        seconds_since_end=max(0.0, time.time() - ended_ms / 1000) if ended_ms else 0.0,
    )


def _log_path(attempt: int) -> str:
    return f"logs/attempt-{attempt}.log"

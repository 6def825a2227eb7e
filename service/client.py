"""A typed, synchronous client of the control plane's HTTP API."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, BinaryIO, Self
from urllib.parse import quote

import httpx
from pydantic import BaseModel, RootModel

from jobs.specs import JobKind, JobSpec
from jobs.tickets import TrialState
from service.answers import (
    DryRunRead,
    EventRead,
    FileRead,
    InfoRead,
    JobRead,
    Page,
    ReadinessRead,
    ReportFileRead,
)
from service.connection import (
    GATEWAY_STATUSES,
    ClientError,
    Connection,
    ProblemError,
    ServiceUnreachableError,
    UnexpectedAnswerError,
)
from service.file_states import FileStatus
from service.key_client import KeyClient
from service.model_client import ModelClient
from service.outage import Outage
from service.resending import send_once
from service.run_client import RunClient
from service.states import JobStatus
from service.trial_answers import TrialRead

__all__ = [
    "Client",
    "ClientError",
    "ProblemError",
    "ServiceUnreachableError",
    "UnexpectedAnswerError",
]

_STREAM_SILENCE_S = 60.0
"""Four heartbeats of an event stream; a connection that is silent for longer is dead."""

_LOG_ANSWER_S = 60.0
"""A log may have to come from Ray or MLflow first, and a report from MLflow."""

_DRY_RUN_ANSWER_S = 900.0
"""The service gives up earlier, after a time that its operator sets."""

_UPLOAD_ANSWER_S = 900.0
"""An upload is answered when its rows are validated, or after a time that an operator sets."""

_LONGEST_LOOK_S = 5.0
"""Longest wait between two looks at a file that is being validated."""


class Client:
    """One connection pool to one service; close it, or use it as a context.

    Every method raises a `ClientError` when it has no answer to return.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        timeout_s: float = 30.0,
        reconnect_wait_s: float = 0.5,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Prepare a client; nothing is sent yet.

        Args:
            url: Address of the API, such as http://127.0.0.1:8800.
            token: API key.
            timeout_s: Longest wait for an answer (seconds); uploads and streams wait longer.
            reconnect_wait_s: First wait before an event stream is opened again (seconds); doubles
                with each failure up to five seconds.
            transport: What carries the requests; by default TCP.
        """
        self._connection = Connection(url, token, timeout_s, transport)
        self._reconnect_wait_s = reconnect_wait_s
        self.keys = KeyClient(self._connection)
        """What administrators do: API keys and the audit log."""
        self.models = ModelClient(self._connection)
        """Registered adapters."""
        self.runs = RunClient(self._connection)
        """Metrics, checkpoints and files of jobs."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._connection.close()

    @property
    def url(self) -> str:
        """Address of the API, without a trailing slash."""
        return self._connection.url

    def info(self) -> InfoRead:
        """Return the service's version and where MLflow and Ray are."""
        return self._connection.get(InfoRead, "/v1/info")

    def ready(self) -> ReadinessRead:
        """Return whether the service and all it needs work; one that is not ready is no error."""
        unavailable = frozenset({httpx.codes.SERVICE_UNAVAILABLE})
        return self._connection.get(ReadinessRead, "/readyz", accepted=unavailable)

    def upload_file(self, rows: BinaryIO, filename: str) -> FileRead:
        """Upload a data set; it is streamed, never held in memory.

        One of many rows may still be `validating`: see `wait_for_file`.
        """
        return self._connection.post_file(FileRead, "/v1/files", rows, filename, _UPLOAD_ANSWER_S)

    def get_file(self, file_id: str) -> FileRead:
        """Return what is known about an uploaded data set."""
        return self._connection.get(FileRead, f"/v1/files/{_segment(file_id)}")

    def list_files(
        self, *, limit: int = 50, after: str | None = None, status: FileStatus | None = None
    ) -> Page[FileRead]:
        """Return uploaded data sets, newest first; `after` is the last id of the page before."""
        return self._connection.get(
            Page[FileRead], "/v1/files", limit=limit, after=after, status=status
        )

    def wait_for_file(self, file_id: str, *, patience_s: float = 120.0) -> FileRead:
        """Return a data set once it is no longer `validating`.

        Args:
            file_id: The data set.
            patience_s: Longest time without an answer (seconds) before the error is raised.
        """
        outage = Outage(self._reconnect_wait_s, patience_s, lambda error: None)
        wait_s = self._reconnect_wait_s
        while True:
            try:
                file = self.get_file(file_id)
            except ServiceUnreachableError as error:
                outage.wait(error)
            except ProblemError as error:
                if error.status not in GATEWAY_STATUSES:
                    raise
                outage.wait(error)
            else:
                if file.status is not FileStatus.VALIDATING:
                    return file
                outage.end()
                time.sleep(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_LOOK_S)

    def download_file(self, file_id: str, file: BinaryIO) -> None:
        """Write the bytes of a data set to a file."""
        path = f"/v1/files/{_segment(file_id)}/content"
        self._connection.download(path, file, silence_s=_STREAM_SILENCE_S)

    def delete_file(self, file_id: str) -> None:
        """Delete a data set that no job needs any more."""
        self._connection.delete(f"/v1/files/{_segment(file_id)}")

    def submit_job(self, spec: JobSpec | Mapping[str, Any]) -> JobRead:
        """Queue a job; sent again if its answer is lost, it is queued once all the same."""
        return self._submit("/v1/jobs", _body(spec))

    def dry_run(self, spec: JobSpec | Mapping[str, Any]) -> DryRunRead:
        """Return what a job would come to, as the cluster finds out; nothing is queued."""
        return self._connection.post(
            DryRunRead, "/v1/jobs", _body(spec), timeout_s=_DRY_RUN_ANSWER_S, dry_run="true"
        )

    def rerun_job(self, job_id: str, overrides: Mapping[str, Any] | None = None) -> JobRead:
        """Queue a new job of another's spec, with some fields changed.

        Args:
            job_id: The job that is done again, in whatever state it is.
            overrides: Values by field, nested like the spec; members of lists are named by number.
        """
        return self._submit(f"{_job_path(job_id)}/rerun", {"overrides": dict(overrides or {})})

    def dry_run_again(self, job_id: str, overrides: Mapping[str, Any] | None = None) -> DryRunRead:
        """Return what the job that `rerun_job` would queue would come to."""
        return self._connection.post(
            DryRunRead,
            f"{_job_path(job_id)}/rerun",
            {"overrides": dict(overrides or {})},
            timeout_s=_DRY_RUN_ANSWER_S,
            dry_run="true",
        )

    def get_job(self, job_id: str) -> JobRead:
        """Return the record of a job."""
        return self._connection.get(JobRead, _job_path(job_id))

    def list_jobs(
        self,
        *,
        limit: int = 50,
        after: str | None = None,
        status: JobStatus | None = None,
        kind: JobKind | None = None,
        name: str | None = None,
        project: str | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> Page[JobRead]:
        """Return jobs, newest first.

        Args:
            limit: Most jobs that are returned.
            after: Last id of the page before.
            status: Jobs of this status alone.
            kind: Jobs of this kind alone.
            name: Jobs of this name alone.
            project: Jobs of this project alone.
            tags: Jobs with all of these tags alone.
            metadata: Jobs with all of these pairs in their metadata alone.
        """
        pairs: dict[str, Any] = {
            f"metadata[{key}]": value for key, value in (metadata or {}).items()
        }
        return self._connection.get(
            Page[JobRead],
            "/v1/jobs",
            limit=limit,
            after=after,
            status=status,
            kind=kind,
            name=name,
            project=project,
            tag=tags,
            **pairs,
        )

    def pause_job(self, job_id: str) -> JobRead:
        """Ask for a job to leave the cluster, which may take a moment: see `status`."""
        return self._connection.post(JobRead, f"{_job_path(job_id)}/pause")

    def resume_job(self, job_id: str) -> JobRead:
        """Queue a paused job again; it goes on from its last checkpoint."""
        return self._connection.post(JobRead, f"{_job_path(job_id)}/resume")

    def cancel_job(self, job_id: str) -> JobRead:
        """Ask for the end of a job, which may take a moment: see `status` and `terminal`."""
        return self._connection.post(JobRead, f"{_job_path(job_id)}/cancel")

    def list_trials(
        self,
        job_id: str,
        *,
        sort: str = "number",
        state: TrialState | None = None,
        limit: int = 1000,
        after: str | None = None,
    ) -> Page[TrialRead]:
        """Return trials of a search as they stand.

        Args:
            job_id: The search.
            sort: What is compared, such as objective or adapter.curvature; after a "-", the
                largest come first.
            state: Trials of this state alone.
            limit: Most trials that are returned.
            after: Last id of the page before.
        """
        path = f"{_job_path(job_id)}/trials"
        return self._connection.get(
            Page[TrialRead], path, sort=sort, state=state, limit=limit, after=after
        )

    def get_trial(self, job_id: str, trial_id: str) -> TrialRead:
        """Return a trial of a search as it stands."""
        return self._connection.get(TrialRead, _trial_path(job_id, trial_id))

    def cancel_trial(self, job_id: str, trial_id: str) -> TrialRead:
        """Ask for the end of one trial, which may take a moment; its search goes on."""
        return self._connection.post(TrialRead, f"{_trial_path(job_id, trial_id)}/cancel")

    def report(self, job_id: str) -> dict[str, Any]:
        """Return what a job found, as data; docs/api.md names the kinds of jobs that do."""
        return self._connection.get(_Document, f"{_job_path(job_id)}/report").root

    def report_page(self, job_id: str) -> str:
        """Return what a job found, as Markdown."""
        path = f"{_job_path(job_id)}/report"
        page = self._connection.get_bytes(path, timeout_s=_LOG_ANSWER_S, format="markdown")
        return page.decode(errors="replace")

    def list_report_files(self, job_id: str) -> Page[ReportFileRead]:
        """Return the files of a report: itself, its plots and its tables."""
        return self._connection.get(Page[ReportFileRead], f"{_job_path(job_id)}/report/files")

    def report_file(self, job_id: str, name: str) -> bytes:
        """Return the content of one of a report's files."""
        path = f"{_job_path(job_id)}/report/files/{_segment(name)}"
        return self._connection.get_bytes(path, timeout_s=_LOG_ANSWER_S)

    def logs(
        self, job_id: str, *, follow: bool = False, attempt: int | None = None
    ) -> Iterator[str]:
        """Yield a job's log in pieces.

        Args:
            job_id: The job.
            follow: Begin with the first attempt and go on until the job ends.
            attempt: The attempt whose log it is; by default the current one.
        """
        return self._connection.stream_text(
            f"{_job_path(job_id)}/logs",
            silence_s=None if follow else _LOG_ANSWER_S,
            follow="true" if follow else None,
            attempt=attempt,
        )

    def list_events(
        self, job_id: str, *, after: int | None = None, limit: int | None = None
    ) -> Page[EventRead]:
        """Return events of a job, oldest first; `after` is the id of the last one known."""
        path = f"{_job_path(job_id)}/events"
        return self._connection.get(Page[EventRead], path, after=after, limit=limit)

    def follow_events(
        self,
        job_id: str,
        *,
        after: int | None = None,
        patience_s: float = 120.0,
        on_interruption: Callable[[Exception], None] = lambda error: None,
    ) -> Iterator[EventRead]:
        """Yield the events of a job as they happen, until it has ended.

        A broken connection is opened again where it broke, so that a restart of the service goes
        unnoticed but for `on_interruption`.

        Args:
            job_id: The job.
            after: Id of the last event that is known; without it, the first event comes first.
            patience_s: Longest time without a connection (seconds) before the error is raised.
            on_interruption: Called once each time that the connection is lost.
        """
        outage = Outage(self._reconnect_wait_s, patience_s, on_interruption)
        while True:
            try:
                for event in self._stream_events(job_id, after):
                    outage.end()
                    after = event.id
                    yield event
                    if event.type == "status" and event.data.get("terminal"):
                        return
                if self.get_job(job_id).terminal:
                    yield from self._remaining_events(job_id, after)
                    return
                raise ServiceUnreachableError(f"{self.url} ended the event stream")
            except ServiceUnreachableError as error:
                outage.wait(error)
            except ProblemError as error:
                if error.status not in GATEWAY_STATUSES:
                    raise
                outage.wait(error)

    def _submit(self, path: str, body: Mapping[str, Any]) -> JobRead:
        return send_once(
            lambda headers: self._connection.post(JobRead, path, body, headers=headers),
            self._reconnect_wait_s,
        )

    def _stream_events(self, job_id: str, after: int | None) -> Iterator[EventRead]:
        """Yield the events of one connection."""
        path = f"{_job_path(job_id)}/events"
        return self._connection.stream_events(
            EventRead, path, silence_s=_STREAM_SILENCE_S, after=after
        )

    def _remaining_events(self, job_id: str, after: int | None) -> Iterator[EventRead]:
        """Yield what a stream that ended without a last event has left out."""
        has_more = True
        while has_more:
            page = self.list_events(job_id, after=after)
            yield from page.data
            after = page.data[-1].id if page.data else after
            has_more = page.has_more


class _Document(RootModel[dict[str, Any]]):
    """A JSON object of any fields."""


def _body(spec: JobSpec | Mapping[str, Any]) -> Mapping[str, Any]:
    return spec.model_dump(mode="json") if isinstance(spec, BaseModel) else spec


def _job_path(job_id: str) -> str:
    return f"/v1/jobs/{_segment(job_id)}"


def _trial_path(job_id: str, trial_id: str) -> str:
    return f"{_job_path(job_id)}/trials/{_segment(trial_id)}"


def _segment(identifier: str) -> str:
    """Quote user text so that it stays one segment of a path."""
    return quote(identifier, safe="")

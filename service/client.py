"""A typed, synchronous client of the control plane's HTTP API.

Errors; each message can be shown to a user as it is:

    ClientError
    ├── ServiceUnreachableError   nothing answers, or the connection broke
    ├── ProblemError              the service answered with a problem document (RFC 9457)
    └── UnexpectedAnswerError     something answered, but not as this service does
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar
from urllib.parse import quote

import httpx
from httpx_sse import EventSource, SSEError
from pydantic import BaseModel, ValidationError

from jobs.specs import JobSpec
from service.answers import (
    EventRead,
    FileRead,
    InfoRead,
    JobRead,
    Page,
    ReadinessRead,
)
from service.errors import Problem
from service.outage import Outage
from service.states import JobStatus

_Model = TypeVar("_Model", bound=BaseModel)

_STREAM_SILENCE_S = 60.0
"""Four heartbeats of an event stream; a connection that is silent for longer is dead."""

_UPLOAD_ANSWER_S = 900.0
"""An upload is answered when every row of it is validated."""

_GATEWAY_STATUSES = {502, 503, 504}
"""What a proxy answers while the service behind it is away."""


class ClientError(Exception):
    """Base of what this client raises."""


class ServiceUnreachableError(ClientError):
    """Nothing answers at the address, or the connection broke."""


class UnexpectedAnswerError(ClientError):
    """The answer is not one of this service: another server, a proxy or another version."""


class ProblemError(ClientError):
    """The service refused a request with a problem document."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail or problem.title)
        self.problem = problem

    @property
    def code(self) -> str:
        """Stable code of the problem, such as `spec-invalid`."""
        return self.problem.code

    @property
    def status(self) -> int:
        """HTTP status."""
        return self.problem.status


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
            url: Address of the API, such as `http://127.0.0.1:8800`.
            token: Bearer token.
            timeout_s: Longest wait for an answer (seconds); uploads and streams wait longer.
            reconnect_wait_s: First wait before an event stream is opened again (seconds); doubles
                with each failure up to five seconds.
            transport: What carries the requests; by default TCP.
        """
        self.url = url.rstrip("/")
        self._reconnect_wait_s = reconnect_wait_s
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=timeout_s,
            transport=transport,
            # A proxy from the environment cannot reach this machine's loopback.
            trust_env=not is_loopback(httpx.URL(url).host),
        )

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
        self._http.close()

    def info(self) -> InfoRead:
        """Return the service's version and where MLflow and Ray are."""
        return self._get(InfoRead, "/v1/info")

    def ready(self) -> ReadinessRead:
        """Return whether the service and all it needs work; one that is not ready is no error."""
        with self._reachable():
            response = self._http.get("/readyz")
        if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            self._check(response)
        return self._parse(ReadinessRead, response.content)

    def upload_file(self, rows: BinaryIO, filename: str) -> FileRead:
        """Upload a data set; it is streamed, never held in memory."""
        request = self._http.build_request(
            "POST",
            "/v1/files",
            files={"file": (filename, rows, "application/jsonl")},
            data={"purpose": "fine-tune"},
            timeout=self._timeout(_UPLOAD_ANSWER_S),
        )
        return self._send(FileRead, request)

    def get_file(self, file_id: str) -> FileRead:
        """Return what is known about an uploaded data set."""
        return self._get(FileRead, f"/v1/files/{_segment(file_id)}")

    def list_files(self) -> Page[FileRead]:
        """Return the uploaded data sets."""
        return self._get(Page[FileRead], "/v1/files")

    def submit_job(self, spec: JobSpec | Mapping[str, Any]) -> JobRead:
        """Queue a job."""
        body = spec.model_dump(mode="json") if isinstance(spec, BaseModel) else dict(spec)
        return self._send(JobRead, self._http.build_request("POST", "/v1/jobs", json=body))

    def get_job(self, job_id: str) -> JobRead:
        """Return the record of a job."""
        return self._get(JobRead, _job_path(job_id))

    def list_jobs(
        self, *, limit: int = 50, after: str | None = None, status: JobStatus | None = None
    ) -> Page[JobRead]:
        """Return jobs, newest first; `after` is the last id of the page before."""
        return self._get(Page[JobRead], "/v1/jobs", limit=limit, after=after, status=status)

    def cancel_job(self, job_id: str) -> JobRead:
        """Ask for the end of a job, which may take a moment: see `status` and `terminal`."""
        request = self._http.build_request("POST", f"{_job_path(job_id)}/cancel")
        return self._send(JobRead, request)

    def list_events(
        self, job_id: str, *, after: int | None = None, limit: int | None = None
    ) -> Page[EventRead]:
        """Return events of a job, oldest first; `after` is the id of the last one known."""
        return self._get(Page[EventRead], f"{_job_path(job_id)}/events", after=after, limit=limit)

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[str]:
        """Yield a job's log in pieces; with `follow`, until the job ends."""
        query = {"follow": "true"} if follow else {}
        silence_s = None if follow else self._http.timeout.read
        with (
            self._reachable(),
            self._http.stream(
                "GET",
                f"{_job_path(job_id)}/logs",
                params=query,
                timeout=self._timeout(silence_s),
            ) as response,
        ):
            self._check(response)
            yield from response.iter_text()

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
                outage.wait(ServiceUnreachableError(f"{self.url} ended the event stream"))
            except ServiceUnreachableError as error:
                outage.wait(error)
            except ProblemError as error:
                if error.status not in _GATEWAY_STATUSES:
                    raise
                outage.wait(error)

    def _stream_events(self, job_id: str, after: int | None) -> Iterator[EventRead]:
        """Yield the events of one connection."""
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if after is not None:
            headers["Last-Event-ID"] = str(after)
        with (
            self._reachable(),
            self._http.stream(
                "GET",
                f"{_job_path(job_id)}/events",
                headers=headers,
                timeout=self._timeout(_STREAM_SILENCE_S),
            ) as response,
        ):
            self._check(response)
            for message in EventSource(response).iter_sse():
                if message.data:  # httpx-sse passes heartbeats on as messages without data
                    yield self._parse(EventRead, message.data)

    def _remaining_events(self, job_id: str, after: int | None) -> Iterator[EventRead]:
        """Yield what a stream that ended without a last event has left out."""
        has_more = True
        while has_more:
            page = self.list_events(job_id, after=after)
            yield from page.data
            after = page.data[-1].id if page.data else after
            has_more = page.has_more

    def _timeout(self, read_s: float | None) -> httpx.Timeout:
        """Return the usual timeout with another longest silence of the service."""
        return httpx.Timeout(self._http.timeout.connect, read=read_s)

    def _get(self, model: type[_Model], path: str, **query: str | int | None) -> _Model:
        given = {name: value for name, value in query.items() if value is not None}
        return self._send(model, self._http.build_request("GET", path, params=given))

    def _send(self, model: type[_Model], request: httpx.Request) -> _Model:
        with self._reachable():
            response = self._http.send(request)
        self._check(response)
        return self._parse(model, response.content)

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        """Turn what httpx raises into this client's errors."""
        try:
            yield
        except httpx.ConnectError as error:
            raise ServiceUnreachableError(f"nothing answers at {self.url}") from error
        except httpx.TimeoutException as error:
            raise ServiceUnreachableError(f"{self.url} did not answer in time") from error
        except httpx.TransportError as error:
            raise ServiceUnreachableError(f"the connection to {self.url} broke: {error}") from error
        except (httpx.DecodingError, SSEError) as error:
            raise UnexpectedAnswerError(f"cannot read what {self.url} answered: {error}") from error

    def _check(self, response: httpx.Response) -> None:
        """Raise unless a request succeeded."""
        if response.is_success:
            return
        with self._reachable():
            content = response.read()
        if response.headers.get("Content-Type", "").startswith("application/problem+json"):
            raise ProblemError(self._parse(Problem, content))
        answer = f"{self.url} answered {response.status_code} {response.reason_phrase}".rstrip()
        if response.status_code in _GATEWAY_STATUSES:
            raise ServiceUnreachableError(answer)
        raise UnexpectedAnswerError(f"{answer}, which hyplora does not: check the address")

    def _parse(self, model: type[_Model], content: bytes | str) -> _Model:
        try:
            return model.model_validate_json(content)
        except ValidationError as error:
            raise UnexpectedAnswerError(
                f"{self.url} answered something that is no {model.__name__}: "
                "check the address, and that client and service have the same version"
            ) from error


def is_loopback(host: str) -> bool:
    """Whether a host is this machine's loopback interface."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _segment(identifier: str) -> str:
    """Quote user text so that it stays one segment of a path."""
    return quote(identifier, safe="")


def _job_path(job_id: str) -> str:
    return f"/v1/jobs/{_segment(job_id)}"

"""The client's way to the service: sends requests, checks and reads answers.

Errors; each message can be shown to a user as it is:

    ClientError
    ├── ServiceUnreachableError   nothing answers, or the connection broke
    │   └── AnswerLostError       the connection broke after the request was sent, perhaps in whole
    ├── ProblemError              the service answered with a problem document (RFC 9457)
    └── UnexpectedAnswerError     something answered, but not as this service does
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any, BinaryIO, TypeVar

import httpx
from httpx_sse import EventSource, SSEError
from pydantic import BaseModel, ValidationError

from service.errors import Problem

_Model = TypeVar("_Model", bound=BaseModel)

Query = str | int | Sequence[str] | None
"""Value of a parameter; several are sent one by one, and None is left out."""

GATEWAY_STATUSES = {502, 503, 504}
"""What a proxy answers while the service behind it is away."""


class ClientError(Exception):
    """Base of what the client raises."""


class ServiceUnreachableError(ClientError):
    """Nothing answers at the address, or the connection broke."""


class AnswerLostError(ServiceUnreachableError):
    """The connection broke before an answer came; the request may have been carried out."""


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


class Connection:
    """One pool of connections to one service; every method raises a `ClientError`.

    Args:
        url: Address of the API, such as http://127.0.0.1:8800.
        token: API key.
        timeout_s: Longest wait for an answer where a method is given none (seconds).
        transport: What carries the requests.
    """

    def __init__(
        self, url: str, token: str, timeout_s: float, transport: httpx.BaseTransport | None
    ) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=timeout_s,
            transport=transport,
            # A proxy from the environment cannot reach this machine's loopback.
            trust_env=not is_loopback(httpx.URL(url).host),
        )

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    def get(
        self,
        model: type[_Model],
        path: str,
        *,
        accepted: frozenset[int] = frozenset(),
        timeout_s: float | None = None,
        **query: Query,
    ) -> _Model:
        """Ask for something; a query that is None is left out.

        Args:
            model: What the answer is read as.
            path: Path under the address.
            accepted: Statuses beyond success that carry an answer.
            timeout_s: Longest wait for the answer; by default the connection's.
            **query: Parameters.
        """
        timeout = self._http.timeout if timeout_s is None else self._timeout(timeout_s)
        request = self._http.build_request("GET", path, params=_given(query), timeout=timeout)
        return self._send(model, request, accepted)

    def get_bytes(self, path: str, *, timeout_s: float, **query: Query) -> bytes:
        """Download a file; `timeout_s` bounds the longest silence."""
        with self._stream(path, timeout_s, params=_given(query)) as response:
            return response.read()

    def post(
        self,
        model: type[_Model],
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        headers: Mapping[str, str] | None = None,
        **query: Query,
    ) -> _Model:
        """Send JSON; `timeout_s` bounds the wait for the answer where the usual is too short."""
        timeout = self._http.timeout if timeout_s is None else self._timeout(timeout_s)
        request = self._http.build_request(
            "POST", path, json=body, params=_given(query), timeout=timeout, headers=headers
        )
        return self._send(model, request)

    def put(
        self,
        model: type[_Model],
        path: str,
        body: Mapping[str, Any],
        *,
        headers: Mapping[str, str] | None = None,
    ) -> _Model:
        """Send JSON that takes the place of what is there."""
        return self._send(model, self._http.build_request("PUT", path, json=body, headers=headers))

    def delete(self, path: str) -> None:
        """Remove something."""
        with self._reachable():
            response = self._http.delete(path)
        self._check(response)

    def download(self, path: str, file: BinaryIO, *, silence_s: float) -> None:
        """Write an answer to a file, in pieces; a longer silence than `silence_s` is an error."""
        with self._stream(path, silence_s) as response:
            file.writelines(response.iter_bytes())

    def post_file(
        self, model: type[_Model], path: str, file: BinaryIO, filename: str, timeout_s: float
    ) -> _Model:
        """Send a file as a form, in pieces; `timeout_s` bounds the wait for the answer."""
        request = self._http.build_request(
            "POST",
            path,
            files={"file": (filename, file, "application/jsonl")},
            data={"purpose": "fine-tune"},
            timeout=self._timeout(timeout_s),
        )
        return self._send(model, request)

    def stream_text(self, path: str, *, silence_s: float | None, **query: Query) -> Iterator[str]:
        """Yield a text in pieces; a silence of more than `silence_s` seconds is an error."""
        with self._stream(path, silence_s, params=_given(query)) as response:
            yield from response.iter_text()

    def stream_events(
        self, model: type[_Model], path: str, *, silence_s: float, after: int | None
    ) -> Iterator[_Model]:
        """Yield server-sent events, those that follow the id `after`, until the stream ends."""
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if after is not None:
            headers["Last-Event-ID"] = str(after)
        with self._stream(path, silence_s, headers=headers) as response:
            for message in EventSource(response).iter_sse():
                if message.data:  # httpx-sse passes heartbeats on as messages without data
                    yield self._parse(model, message.data)

    def _send(
        self, model: type[_Model], request: httpx.Request, accepted: frozenset[int] = frozenset()
    ) -> _Model:
        with self._reachable():
            response = self._http.send(request)
        if response.status_code not in accepted:
            self._check(response)
        return self._parse(model, response.content)

    @contextmanager
    def _stream(
        self,
        path: str,
        silence_s: float | None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Query] | None = None,
    ) -> Iterator[httpx.Response]:
        timeout = self._timeout(silence_s)
        with (
            self._reachable(),
            self._http.stream(
                "GET", path, headers=headers, params=params, timeout=timeout
            ) as response,
        ):
            self._check(response)
            yield response

    def _timeout(self, read_s: float | None) -> httpx.Timeout:
        """Return the usual timeout with another longest silence of the service."""
        return httpx.Timeout(self._http.timeout.connect, read=read_s)

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        """Turn what httpx raises into this module's errors."""
        try:
            yield
        except httpx.ConnectError as error:
            raise ServiceUnreachableError(f"nothing answers at {self.url}") from error
        except httpx.ConnectTimeout as error:
            raise ServiceUnreachableError(f"{self.url} did not answer in time") from error
        except httpx.TimeoutException as error:
            raise AnswerLostError(f"{self.url} did not answer in time") from error
        except httpx.TransportError as error:
            raise AnswerLostError(f"the connection to {self.url} broke: {error}") from error
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
        if response.status_code in GATEWAY_STATUSES:
            raise AnswerLostError(answer)
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


def _given(query: Mapping[str, Query]) -> dict[str, Query]:
    return {name: value for name, value in query.items() if value is not None}

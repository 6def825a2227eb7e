"""The Ray cluster through its Jobs API; the only file that imports Ray."""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Callable
from typing import NoReturn, Protocol, TypeVar

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from service.boundaries import DriverReport, DriverRequest, DriverState
from service.errors import DriverNotStartedError, RayUnavailableError, RefusedError, root_cause

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_TIMEOUT_S = 10.0
_NOT_FOUND, _SERVER_ERROR = 404, 500


class _Response(Protocol):
    status_code: int
    text: str


class _AnswerError(Exception):
    """Ray answered a request with an error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"Ray answered {status}: {_first_line(text)}")
        self.status = status


class _TimedClient(JobSubmissionClient):
    """Ray's client, with a time limit on each request and errors that keep their HTTP status."""

    def _do_request(self, method: str, endpoint: str, **options: object) -> _Response:
        response: _Response = super()._do_request(method, endpoint, timeout=_TIMEOUT_S, **options)
        return response

    def _raise_error(self, r: _Response) -> NoReturn:
        raise _AnswerError(r.status_code, r.text)


class RayDrivers:
    """Drivers on one Ray cluster, reached by a synchronous client in threads.

    Args:
        address: Of the dashboard, such as http://127.0.0.1:8265.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._client: _TimedClient | None = None
        for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
            # Ray's client lets these override the address it is given.
            if os.environ.pop(name, None) is not None:
                logger.warning("%s is ignored; HYPLORA_RAY_ADDRESS says where Ray is", name)

    async def ping(self) -> None:
        """Ask for Ray's version."""
        await self._call(lambda client: client.get_version())

    async def submit(self, request: DriverRequest) -> None:
        """Start a driver; an id that is taken counts as started."""

        def submit(client: _TimedClient) -> None:
            try:
                client.submit_job(
                    entrypoint=request.entrypoint,
                    submission_id=request.submission_id,
                    runtime_env={"env_vars": dict(request.environment)},
                    metadata=dict(request.metadata),
                )
            except _AnswerError as error:
                # Ray tells a taken id by a message alone, so look whether the driver is there.
                if _state_of(client, request.submission_id).state is DriverState.UNKNOWN:
                    if error.status >= _SERVER_ERROR:
                        raise DriverNotStartedError(str(error)) from error
                    raise

        await self._call(submit)

    async def report(self, submission_id: str) -> DriverReport:
        """How a driver is."""
        return await self._call(lambda client: _state_of(client, submission_id))

    async def stop(self, submission_id: str) -> None:
        """Ask a driver to end; Ray signals it once, however often it is asked."""

        def stop(client: _TimedClient) -> None:
            try:
                client.stop_job(submission_id)
            except _AnswerError as error:
                if error.status != _NOT_FOUND:
                    raise

        await self._call(stop)

    async def log(self, submission_id: str) -> str | None:
        """Everything a driver has written, if Ray still has it."""

        def read(client: _TimedClient) -> str | None:
            try:
                return str(client.get_job_logs(submission_id))
            except _AnswerError as error:
                # Besides an unknown id: the node that ran the driver, and held its log, is gone.
                logger.warning("no log of %s: %s", submission_id, error)
                return None

        return await self._call(read)

    async def follow_log(self, submission_id: str) -> AsyncGenerator[str]:
        """What a driver writes, until it ends."""
        client = await self._call(lambda client: client)
        try:
            async for text in client.tail_job_logs(submission_id):
                yield text
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            raise self._unavailable(error) from error

    async def _call(self, request: Callable[[_TimedClient], _T]) -> _T:
        try:
            return await asyncio.to_thread(lambda: request(self._connected()))
        except _AnswerError as error:
            if error.status < _SERVER_ERROR:
                raise RefusedError(str(error)) from error
            raise self._unavailable(error) from error
        except AuthenticationError as error:
            self._client = None  # it holds the token that was refused
            raise self._unavailable(error) from error
        except (OSError, RuntimeError) as error:  # what requests raises is an OSError
            raise self._unavailable(error) from error

    def _connected(self) -> _TimedClient:
        """The client; its constructor already asks the cluster for its version."""
        if self._client is None:
            self._client = _TimedClient(self.address)
        return self._client

    def _unavailable(self, error: Exception) -> RayUnavailableError:
        return RayUnavailableError(
            f"Ray at {self.address} is out of reach ({root_cause(error)}); jobs wait for it"
        )


def _state_of(client: _TimedClient, submission_id: str) -> DriverReport:
    try:
        details = client.get_job_info(submission_id)
    except _AnswerError as error:
        if error.status != _NOT_FOUND:
            raise
        return DriverReport(DriverState.UNKNOWN)
    return DriverReport(DriverState(details.status.value), _first_line(details.message or ""))


def _first_line(text: str) -> str:
    """Ray's messages may carry a whole log after their first line."""
    lines = text.strip().splitlines()
    return lines[0][:300] if lines else ""

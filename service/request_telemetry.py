"""Counts requests by the template of their route, never by their path."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.telemetry import UNKNOWN_ROUTE, Telemetry

_Endpoint = Callable[..., Any]


class RequestTelemetry:
    """Tells the telemetry of every request.

    Args:
        app: The application.
        telemetry: Counts.
    """

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry
        self._templates: Mapping[_Endpoint, str] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_at, answered_at = time.perf_counter(), None
        # One whose connection breaks before the answer counts as nginx has it.
        status, num_bytes = 499, 0

        async def counted_receive() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            return message

        async def timed_send(message: Message) -> None:
            nonlocal status, answered_at
            if message["type"] == "http.response.start":
                status, answered_at = message["status"], time.perf_counter()
                self._count(scope, status, answered_at - began_at, num_bytes)
            await send(message)

        try:
            await self._app(scope, counted_receive, timed_send)
        finally:
            if answered_at is None:
                self._count(scope, status, time.perf_counter() - began_at, num_bytes)

    def _count(self, scope: Scope, status: int, seconds: float, num_bytes: int) -> None:
        code = scope.get("state", {}).get("problem_code")
        route = self._template(scope)
        self._telemetry.request(scope["method"], route, status, seconds, num_bytes, code)

    def _template(self, scope: Scope) -> str:
        if self._templates is None:
            self._templates = _templates(scope["app"])
        return self._templates.get(scope.get("endpoint"), UNKNOWN_ROUTE)  # type: ignore[arg-type]


def _templates(app: FastAPI) -> dict[_Endpoint, str]:
    """The path of each endpoint with its parameters by name, such as /v1/jobs/{job_id}."""
    return {
        route.endpoint: route.path_format
        for route in iter_route_contexts(app.routes)
        if route.endpoint is not None and route.path_format is not None
    }

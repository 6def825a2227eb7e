"""Around every request: an id, a limit on its body, and an answer to what nobody foresaw."""

import logging
import re
import secrets
from collections.abc import Container

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import InternalError, RequestTooLargeError
from service.problems import problem_response

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 1024**2
"""Most bytes of a body that is read as a whole."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEADER = "X-Request-ID"


class RequestBoundary:
    """Gives each request an id, and turns an unexpected error into a problem that names it.

    The id is the client's X-Request-ID where it sends a sound one, and is sent back with it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(_HEADER, "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        is_answering = False

        async def send_with_id(message: Message) -> None:
            nonlocal is_answering
            if message["type"] == "http.response.start":
                is_answering = True
                MutableHeaders(scope=message)[_HEADER] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            logger.info("the client of request %s went away", request_id)
        except Exception:
            logger.exception("request %s: %s %s", request_id, scope["method"], scope["path"])
            if is_answering:
                raise  # all that is left is to break the connection
            error = InternalError(
                f"the service failed; its log has the reason under request {request_id}"
            )
            response = problem_response(Request(scope), error)
            await response(scope, receive, send_with_id)


class BodyLimit:
    """Reads a request's body before the application does, up to a limit.

    Args:
        app: The application.
        max_bytes: Most bytes that a body may have.
        exempt_paths: Paths whose handlers read the body as it arrives and limit it themselves.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, exempt_paths: Container[str]) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._exempt_paths = exempt_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["path"] in self._exempt_paths:
            await self._app(scope, receive, send)
            return
        body = bytearray()
        has_more = True
        while has_more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            has_more = message.get("more_body", False)
            if len(body) > self._max_bytes:
                error = RequestTooLargeError(f"send a body of at most {self._max_bytes} bytes")
                await problem_response(Request(scope), error)(scope, receive, send)
                return
        unread = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def receive_again() -> Message:
            return unread.pop() if unread else await receive()

        await self._app(scope, receive_again, send)

"""What stands before every route: a valid key, and the scope that the route needs."""

from typing import Annotated
from urllib.parse import quote

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from service.audit import AuditLog
from service.callers import Caller, Scope
from service.errors import ForbiddenError, UnauthorizedError
from service.gate import Gate

_READING = {"GET", "HEAD"}
_bearer = HTTPBearer(auto_error=False, description="An API key: hyp_ and what follows it.")


async def authenticate(
    request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Caller:
    """The caller whose key the request carries; the same for all who ask during one request.

    Raises:
        RateLimitedError: If it comes too often.
        UnauthorizedError: If it carries none that is valid.
    """
    if given is None:
        raise UnauthorizedError(
            "send the header Authorization: Bearer KEY with an API key; "
            "`hyplora keys create` makes one"
        )
    gate: Gate = request.app.state.parts.gate
    address = request.client.host if request.client else ""
    return await gate.admit(given.credentials, address, request.state.request_id)


CallerPart = Annotated[Caller, Depends(authenticate)]


async def require_scope_of_method(request: Request, caller: CallerPart) -> None:
    """Let a request pass whose key may read or, for what is no GET, submit.

    Raises:
        ForbiddenError: If the key may not.
    """
    await _require(request, caller, Scope.READ if request.method in _READING else Scope.SUBMIT)


async def require_admin(request: Request, caller: CallerPart) -> None:
    """Let a request pass whose key is an administrator's.

    Raises:
        ForbiddenError: If it is not.
    """
    await _require(request, caller, Scope.ADMIN)


async def require_scrape(request: Request, caller: CallerPart) -> None:
    """Let a request pass whose key may read the service's own figures.

    Raises:
        ForbiddenError: If it may not.
    """
    await _require(request, caller, Scope.SCRAPE)


async def _require(request: Request, caller: Caller, scope: Scope) -> None:
    try:
        caller.require(scope)
    except ForbiddenError as error:
        if request.method not in _READING:
            audit: AuditLog = request.app.state.parts.audit
            path = quote(request.url.path)
            await audit.note(caller, request.method, path, caller.project, error.code)
        raise

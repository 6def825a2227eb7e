"""Every error leaves the service as an RFC 9457 problem document."""

import logging
import math
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException

from service.errors import (
    DatabaseUnavailableError,
    FieldError,
    Problem,
    ProblemError,
    RequestInvalidError,
    SpecInvalidError,
    root_cause,
)
from service.openai.problems import OPENAI_PREFIX, for_openai, retry_header

logger = logging.getLogger(__name__)

_FIELD_FIRST = re.compile(r"(?P<field>[a-z]\w*(?:\.[^\s.:]+)*): (?P<rest>.+)", re.DOTALL)
"""A rule about a whole spec that blames one field, such as `space.adapter.r: 0 cannot be …`."""


class ProblemResponse(JSONResponse):
    """A problem document."""

    media_type = "application/problem+json"


def install_problem_handlers(app: FastAPI) -> None:
    """Answer the application's errors, and the framework's own, with problem documents."""

    @app.exception_handler(ProblemError)
    async def on_problem(request: Request, error: ProblemError) -> ProblemResponse:
        return problem_response(request, error)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> ProblemResponse:
        return problem_response(request, explain_validation(error))

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> ProblemResponse:
        if error.status_code == HTTPStatus.BAD_REQUEST:  # the framework's word for such a body
            return problem_response(request, _unreadable_body())
        headers = dict(error.headers or {})
        is_wrong_method = error.status_code == HTTPStatus.METHOD_NOT_ALLOWED
        if is_wrong_method and (methods := _methods_at(request)):
            headers["Allow"] = ", ".join(methods)
        return _respond(request, _describe_status(request, error), headers)

    @app.exception_handler(DatabaseUnavailableError)
    async def on_database(request: Request, error: DatabaseUnavailableError) -> ProblemResponse:
        # The answer does not say it: an address may be none of the client's business.
        logger.error("request %s: no database: %s", _request_id(request), root_cause(error))
        return problem_response(request, error)


def describe_problems(app: FastAPI) -> None:
    """Put the schema of a problem document among those of the API's description."""
    describe_routes = app.openapi

    def describe() -> dict[str, Any]:
        description = describe_routes()
        _, schemas = models_json_schema(
            [(Problem, "serialization")], ref_template="#/components/schemas/{model}"
        )
        description["components"]["schemas"] |= schemas["$defs"]
        return description

    app.openapi = describe  # type: ignore[method-assign]


def problem_response(request: Request, error: ProblemError) -> ProblemResponse:
    """The answer to a request that ended in an error."""
    return _respond(request, error.problem(_request_id(request)), error.headers)


def explain_validation(error: RequestValidationError) -> RequestInvalidError | SpecInvalidError:
    """Pydantic's complaints about a request as fields that a user recognises."""
    complaints = error.errors()
    is_body = any(complaint["loc"][0] == "body" for complaint in complaints)
    fields: dict[tuple[str, str], FieldError] = {}
    for complaint in complaints:
        explained = _explain(complaint, error.body)
        fields[explained.field, explained.message] = explained
    errors = list(fields.values())
    sentences = "; ".join(f"{each.field}: {each.message}" for each in errors[:3])
    more = f"; and {len(errors) - 3} more" if len(errors) > 3 else ""
    kind = SpecInvalidError if is_body else RequestInvalidError
    return kind(f"{sentences}{more}", errors)


def _explain(complaint: Mapping[str, Any], body: object) -> FieldError:
    source, *location = complaint["loc"]
    message = complaint["msg"].removeprefix("Value error, ")
    if complaint["type"] == "union_tag_invalid":
        # Pydantic's own message names a function of ours.
        message = "{tag!r} is none of {expected_tags}".format_map(complaint["ctx"])
    if complaint["type"] == "union_tag_not_found":
        message = "Field required"
    if complaint["type"] == "json_invalid":
        reason, position = complaint["ctx"]["error"], location[0]
        return FieldError(field="body", message=f"no JSON: {reason} at character {position}")
    if source == "body":
        location = _named_fields(location, body, keep_last=complaint["type"] == "missing")
        if not location and not isinstance(body, Mapping):
            message = "send a JSON object with the header Content-Type: application/json"
    if named := re.fullmatch(r"'(\w+)'", complaint.get("ctx", {}).get("discriminator", "")):
        location = [*location, named[1]]  # the field that tells the members of a union apart
    is_rule = complaint["type"] == "value_error" and source == "body" and not location
    if is_rule and (named := _FIELD_FIRST.match(message)):
        return FieldError(field=readable(named["field"]), message=readable(named["rest"]))
    field = readable(".".join(map(str, location)) or source)
    return FieldError(field=field, value=_plain(complaint["input"]), message=message)


def _named_fields(location: list[int | str], body: object, keep_last: bool) -> list[int | str]:
    """The part of pydantic's location that the user wrote, or, with `keep_last`, left out.

    The rest are pydantic's names for the members of a union, such as the adapter's method.
    """
    path: list[int | str] = []
    for index, part in enumerate(location):
        is_left_out = keep_last and index == len(location) - 1
        if isinstance(body, Mapping) and (part in body or is_left_out):
            path.append(part)
            body = body.get(part)
        elif isinstance(body, list) and isinstance(part, int):
            path.append(part)
            body = body[part] if part < len(body) else None
    return path


def _plain(value: object) -> bool | int | float | str | None:
    """A single value as JSON can carry it; None for anything larger."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, str):
        return readable(value[:200])
    return value if isinstance(value, bool | int | float) else None


def readable(text: str) -> str:
    """Text without half surrogate pairs, which JSON can name and no encoding can hold."""
    return text.encode(errors="backslashreplace").decode()


def _unreadable_body() -> SpecInvalidError:
    message = "no JSON that can be read: no UTF-8, nested too deeply, or with a number too long"
    return SpecInvalidError(f"body: {message}", [FieldError(field="body", message=message)])


def _methods_at(request: Request) -> list[str]:
    """What the path answers; the framework's own header names the methods of one route alone."""
    path = request.url.path
    description = request.app.openapi()["paths"]
    found = [
        methods
        for template, methods in description.items()
        if re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template)), path)
    ]
    return sorted({method.upper() for methods in found for method in methods})


def _describe_status(request: Request, error: HTTPException) -> Problem:
    phrase = HTTPStatus(error.status_code).phrase
    code = phrase.lower().replace(" ", "-")
    detail = str(error.detail)
    if error.status_code == HTTPStatus.NOT_FOUND:
        detail = f"there is nothing at {request.url.path}; /docs lists what there is"
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        detail = f"{request.url.path} does not answer {request.method}; /docs lists what does"
    return Problem(
        type=f"urn:hyplora:problem:{code}",
        title=phrase,
        status=error.status_code,
        detail=detail,
        code=code,
        instance=f"urn:hyplora:request:{_request_id(request)}",
    )


def _respond(
    request: Request, problem: Problem, headers: Mapping[str, str] | None
) -> ProblemResponse:
    if request.url.path.startswith(f"{OPENAI_PREFIX}/"):
        problem, headers = for_openai(problem), {**(headers or {}), **retry_header(problem.status)}
    request.state.problem_code = problem.code  # for those who count
    content = problem.model_dump(mode="json", exclude_defaults=True)
    return ProblemResponse(content, problem.status, headers)


def _request_id(request: Request) -> str:
    return str(request.state.request_id)

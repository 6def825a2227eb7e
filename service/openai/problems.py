"""Problem documents that OpenAI's clients can read, too: RFC 9457 allows members of one's own."""

from http import HTTPStatus

from service.errors import OpenAiError, Problem

OPENAI_PREFIX = "/openai/v1"
"""Where the routes for OpenAI's clients are."""

_TYPES: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}


def for_openai(problem: Problem) -> Problem:
    """A problem with the member that OpenAI's clients read."""
    error = OpenAiError(
        message=problem.detail,
        type=_type_of(problem.status),
        param=problem.errors[0].field if problem.errors else None,
        code=problem.code,
    )
    return problem.model_copy(update={"error": error})


def retry_header(status: int) -> dict[str, str]:
    """Keeps OpenAI's clients from sending again what was refused for the state of a job or a file.

    They take a 409 for a lock that is soon free.
    """
    return {"X-Should-Retry": "false"} if status == HTTPStatus.CONFLICT else {}


def _type_of(status: int) -> str:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "server_error"
    return _TYPES.get(status, "invalid_request_error")

"""What becomes of a spec that was sent: a dry run, a new job, or the job that it made before."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse

from jobs.specs import JobSpec
from service.answers import DryRunRead, JobRead
from service.dependencies import DryRunsPart, JobsPart, ViewsPart
from service.errors import (
    DataFileNotFoundError,
    DatasetInvalidError,
    DryRunsBusyError,
    DryRunTimeoutError,
    FileNotReadyError,
    IdempotencyKeyReusedError,
    JobWouldFailError,
    MlflowUnavailableError,
    ModelNameTakenError,
    ModelNotFoundError,
    ProblemError,
    RayUnavailableError,
    RequestTooLargeError,
    SpecInvalidError,
    problems,
)
from service.preconditions import etag
from service.submission import KeyedRequest

ETAG_HEADER = {
    "ETag": {
        "description": "State of the record; a change can ask for it with `If-Match`.",
        "schema": {"type": "string"},
    }
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": DryRunRead | JobRead,
        "description": "What the job would come to: with `dry_run`. Or the job that a request with "
        "the same `Idempotency-Key` made.",
        "headers": {
            "Idempotent-Replayed": {
                "description": "That the job was made before.",
                "schema": {"const": "true"},
            }
        },
    },
    201: {"headers": ETAG_HEADER | {"Location": {"schema": {"type": "string"}}}},
}


def submission_answers(*more: type[ProblemError]) -> dict[int | str, dict[str, Any]]:
    """What routes that take specs say of their answers, with problems that are theirs alone."""
    return _ANSWERS | problems(
        DataFileNotFoundError,
        DatasetInvalidError,
        FileNotReadyError,
        ModelNotFoundError,
        ModelNameTakenError,
        RequestTooLargeError,
        SpecInvalidError,
        IdempotencyKeyReusedError,
        JobWouldFailError,
        DryRunsBusyError,
        RayUnavailableError,
        MlflowUnavailableError,
        DryRunTimeoutError,
        *more,
    )


class Intake:
    """Carries one request out, as its parameters say."""

    def __init__(
        self,
        jobs: JobsPart,
        dry_runs: DryRunsPart,
        views: ViewsPart,
        request: Request,
        response: Response,
        dry_run: Annotated[
            bool, Query(description="Queue nothing; answer what the job would come to.")
        ] = False,
        idempotency_key: Annotated[
            str | None,
            Header(
                pattern=r"^[\x21-\x7e]{1,255}$",
                description="Name of this request: sent again, it makes no second job.",
            ),
        ] = None,
    ) -> None:
        self._jobs = jobs
        self._dry_runs = dry_runs
        self._views = views
        self._request = request
        self._response = response
        self._is_dry_run = dry_run
        self._idempotency_key = idempotency_key

    async def take(
        self, spec: JobSpec, content: Mapping[str, Any], rerun_of: str | None = None
    ) -> JobRead | Response:
        """Answer what a job would come to, or the job, new or not.

        Args:
            spec: The job.
            content: What the client has sent, which tells whether a request is sent again.
            rerun_of: The job that is done again.
        """
        if self._is_dry_run:
            found = await self._dry_runs.run(spec, self._request.is_disconnected)
            return JSONResponse(found.model_dump(mode="json"))
        if self._idempotency_key is None:
            job, is_replayed = await self._jobs.submit(spec, rerun_of=rerun_of), False
        else:
            keyed = KeyedRequest.of(self._idempotency_key, rerun_of, content)
            job, is_replayed = await self._jobs.submit_once(spec, keyed, rerun_of=rerun_of)
        if is_replayed:
            self._response.status_code = 200
            self._response.headers["Idempotent-Replayed"] = "true"
        self._response.headers["Location"] = f"/v1/jobs/{job.id}"
        self._response.headers["ETag"] = etag(job)
        return self._views.job(job)


IntakePart = Annotated[Intake, Depends()]

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
    ReferenceNotAllowedError,
    RequestTooLargeError,
    SecretInSpecError,
    SpecInvalidError,
    problems,
)
from service.preconditions import etag
from service.submission import KeyedRequest
from service.tables import Job

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


def queueing_problems(*more: type[ProblemError]) -> dict[int | str, dict[str, Any]]:
    """The problems of routes that queue jobs, with those that are theirs alone."""
    return problems(
        DataFileNotFoundError,
        DatasetInvalidError,
        ModelNotFoundError,
        ModelNameTakenError,
        RequestTooLargeError,
        SpecInvalidError,
        IdempotencyKeyReusedError,
        MlflowUnavailableError,
        ReferenceNotAllowedError,
        SecretInSpecError,
        *more,
    )


def submission_answers(*more: type[ProblemError]) -> dict[int | str, dict[str, Any]]:
    """What routes that take specs say of their answers, with problems that are theirs alone."""
    return _ANSWERS | queueing_problems(
        FileNotReadyError,
        JobWouldFailError,
        DryRunsBusyError,
        RayUnavailableError,
        DryRunTimeoutError,
        *more,
    )


class Submission:
    """Queues the job that one request asks for, once however often that is sent."""

    def __init__(
        self,
        jobs: JobsPart,
        response: Response,
        idempotency_key: Annotated[
            str | None,
            Header(
                pattern=r"^[\x21-\x7e]{1,255}$",
                description="Name of this request: sent again, it makes no second job.",
            ),
        ] = None,
    ) -> None:
        self._jobs = jobs
        self._response = response
        self._idempotency_key = idempotency_key

    async def queue(
        self, spec: JobSpec, content: Mapping[str, Any], path: str, rerun_of: str | None = None
    ) -> Job:
        """The job, new or not; the answer's headers say which, and where it can be read.

        Args:
            spec: The job.
            content: What the client has sent, which tells whether a request is sent again.
            path: Where jobs are read.
            rerun_of: The job that is done again.
        """
        if self._idempotency_key is None:
            job, is_replayed = await self._jobs.submit(spec, rerun_of=rerun_of), False
        else:
            keyed = KeyedRequest.of(self._idempotency_key, rerun_of, content)
            job, is_replayed = await self._jobs.submit_once(spec, keyed, rerun_of=rerun_of)
        if is_replayed:
            self._response.status_code = 200
            self._response.headers["Idempotent-Replayed"] = "true"
        self._response.headers["Location"] = f"{path}/{job.id}"
        self._response.headers["ETag"] = etag(job)
        return job


SubmissionPart = Annotated[Submission, Depends()]


class Intake:
    """Carries one request out, as its parameters say."""

    def __init__(
        self,
        submission: SubmissionPart,
        dry_runs: DryRunsPart,
        views: ViewsPart,
        request: Request,
        dry_run: Annotated[
            bool, Query(description="Queue nothing; answer what the job would come to.")
        ] = False,
    ) -> None:
        self._submission = submission
        self._dry_runs = dry_runs
        self._views = views
        self._request = request
        self._is_dry_run = dry_run

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
        job = await self._submission.queue(spec, content, "/v1/jobs", rerun_of)
        return self._views.job(job)


IntakePart = Annotated[Intake, Depends()]

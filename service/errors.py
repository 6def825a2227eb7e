"""What can go wrong in the control plane, and how each error reads as an RFC 9457 problem.

ServiceError
├── RefusedError                     Ray or MLflow refused what it will refuse again
├── DriverNotStartedError            Ray answers, but fails to start a driver: try again
├── MissingFileError                 the bytes of an uploaded file are gone, or not valid
└── ProblemError                     has an HTTP status and a stable code
    ├── UnauthorizedError            401 unauthorized
    ├── ForbiddenError               403 forbidden
    ├── KeyNotFoundError             404 key-not-found
    ├── JobNotFoundError             404 job-not-found
    ├── JobNotASearchError           404 job-not-a-search
    ├── TrialNotFoundError           404 trial-not-found
    ├── RunNotFoundError             404 run-not-found
    ├── CheckpointNotFoundError      404 checkpoint-not-found
    ├── ArtifactNotFoundError        404 artifact-not-found
    ├── ReportNotFoundError          404 report-not-found
    ├── ReportFileNotFoundError      404 report-file-not-found
    ├── DataFileNotFoundError        404 file-not-found
    ├── ModelNotFoundError           404 model-not-found
    ├── ModelVersionNotFoundError    404 model-version-not-found
    ├── ModelAliasNotFoundError      404 model-alias-not-found
    ├── NoAdapterError               404 model-version-without-adapter
    ├── JobAlreadyEndedError         409 job-already-ended
    ├── JobNotPausableError          409 job-not-pausable
    ├── JobNotPausedError            409 job-not-paused
    ├── JobNotRunningError           409 job-not-running
    ├── TrialAlreadyEndedError       409 trial-already-ended
    ├── ModelNameTakenError          409 model-name-taken
    ├── ModelInUseError              409 model-in-use
    ├── FileInUseError               409 file-in-use
    ├── FileNotReadyError            409 file-not-ready
    ├── FileContentGoneError         410 file-content-gone
    ├── PreconditionFailedError      412 precondition-failed
    ├── RequestTooLargeError         413 request-too-large
    ├── UploadTooLargeError          413 upload-too-large
    ├── RangeNotSatisfiableError     416 range-not-satisfiable
    ├── RequestInvalidError          422 request-invalid
    ├── SpecInvalidError             422 spec-invalid
    ├── IdempotencyKeyReusedError    422 idempotency-key-reused
    ├── ReferenceNotAllowedError     422 reference-not-allowed
    ├── SecretInSpecError            422 secret-in-spec
    ├── UploadMalformedError         422 upload-malformed
    ├── DatasetInvalidError          422 dataset-invalid
    ├── JobWouldFailError            422 and the code of the failure
    ├── RateLimitedError             429 rate-limited
    ├── DryRunsBusyError             429 dry-runs-busy
    ├── InternalError                500 internal
    ├── DryRunTimeoutError           504 dry-run-timeout
    ├── StorageFullError             507 storage-full
    └── UnavailableError             503, a part of the system does not answer: try again
        ├── DatabaseUnavailableError 503 database-unavailable
        ├── RayUnavailableError      503 ray-unavailable
        ├── MlflowUnavailableError   503 mlflow-unavailable
        └── StorageUnavailableError  503 storage-unavailable
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from workers.specs import FailureCode


class FieldError(BaseModel):
    """One thing that is wrong with what was sent."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    field: str
    """Path of the field, such as adapter.curvature; "body" for the whole."""

    value: bool | int | float | str | None = None
    """What was given, where it is a single value."""

    message: str
    """What is wrong with it."""

    line: int | None = None
    """Line of an uploaded file, or row of one in Parquet, from 1."""


class OpenAiError(BaseModel):
    """An error as OpenAI's clients read it."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    message: str
    """The problem's `detail`."""

    type: str
    """What sort of problem it is, in OpenAI's words, such as invalid_request_error."""

    param: str | None
    """The first field at fault."""

    code: str
    """The problem's `code`."""


class Problem(BaseModel):
    """An error as RFC 9457 lays it out."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: str
    """urn:hyplora:problem: and the code."""

    title: str
    """What this kind of problem is; the same for every occurrence."""

    status: int
    """The HTTP status."""

    detail: str
    """What happened this time and what to do about it."""

    code: str
    """Stable name of this kind of problem, listed in docs/api.md."""

    instance: str | None = None
    """urn:hyplora:request: and the id under which the service logged the request."""

    errors: list[FieldError] = []
    """The fields at fault, where fields are."""

    error: OpenAiError | None = None
    """The same for OpenAI's clients; only under /openai/v1."""


class ServiceError(Exception):
    """Base of the control plane's errors; the message says what to do next."""


class RefusedError(ServiceError):
    """Ray or MLflow refused a request that it will refuse again."""


class DriverNotStartedError(ServiceError):
    """Ray answered that it failed to start a driver, which it may be able to in a while."""


class MissingFileError(ServiceError):
    """The bytes of an uploaded file are gone, are not what was uploaded, or were never valid."""


class ProblemError(ServiceError):
    """An error that is an answer to an HTTP request."""

    code: ClassVar[str]
    status: ClassVar[int]
    headers: ClassVar[Mapping[str, str]] = {}
    """What the answer says to programs."""

    def __init__(self, detail: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.errors = tuple(errors)

    @classmethod
    def title(cls) -> str:
        """The docstring's first line: what this kind of problem is."""
        return (inspect.getdoc(cls) or cls.code).splitlines()[0].rstrip(".")

    def problem(self, request_id: str | None) -> Problem:
        """The document that answers the request."""
        return Problem(
            type=f"urn:hyplora:problem:{self.code}",
            title=self.title(),
            status=self.status,
            detail=str(self),
            code=self.code,
            instance=request_id and f"urn:hyplora:request:{request_id}",
            errors=list(self.errors),
        )


class UnauthorizedError(ProblemError):
    """The request carries no valid API key."""

    code, status = "unauthorized", 401
    headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": "Bearer"}


class ForbiddenError(ProblemError):
    """The API key lacks the scope that this needs."""

    code, status = "forbidden", 403


class KeyNotFoundError(ProblemError):
    """No API key has this id."""

    code, status = "key-not-found", 404


class JobNotFoundError(ProblemError):
    """No job has this id."""

    code, status = "job-not-found", 404


class JobNotASearchError(ProblemError):
    """The job is no search and has no trials."""

    code, status = "job-not-a-search", 404


class TrialNotFoundError(ProblemError):
    """The search has no trial of this id."""

    code, status = "trial-not-found", 404


class RunNotFoundError(ProblemError):
    """The job's MLflow run is gone."""

    code, status = "run-not-found", 404


class CheckpointNotFoundError(ProblemError):
    """The job has no checkpoint of this id."""

    code, status = "checkpoint-not-found", 404


class ArtifactNotFoundError(ProblemError):
    """The job's run has no file of this path."""

    code, status = "artifact-not-found", 404


class ReportNotFoundError(ProblemError):
    """The job has no report, or none yet."""

    code, status = "report-not-found", 404


class ReportFileNotFoundError(ProblemError):
    """The report has no file of this name that can be handed out."""

    code, status = "report-file-not-found", 404


class DataFileNotFoundError(ProblemError):
    """No uploaded file has this id."""

    code, status = "file-not-found", 404


class FileContentGoneError(ProblemError):
    """The file's bytes are no longer stored."""

    code, status = "file-content-gone", 410


class FileInUseError(ProblemError):
    """A job that has not ended names the file."""

    code, status = "file-in-use", 409


class FileNotReadyError(ProblemError):
    """The file's rows are still being validated."""

    code, status = "file-not-ready", 409


class ModelNotFoundError(ProblemError):
    """No registered model has this name."""

    code, status = "model-not-found", 404


class ModelVersionNotFoundError(ProblemError):
    """The registered model has no such version."""

    code, status = "model-version-not-found", 404


class ModelAliasNotFoundError(ProblemError):
    """The registered model has no such alias."""

    code, status = "model-alias-not-found", 404


class NoAdapterError(ProblemError):
    """The model version holds no adapter in safetensors."""

    code, status = "model-version-without-adapter", 404


class JobAlreadyEndedError(ProblemError):
    """The job has ended and cannot be cancelled."""

    code, status = "job-already-ended", 409


class JobNotPausableError(ProblemError):
    """The job has ended or is being cancelled and cannot be paused."""

    code, status = "job-not-pausable", 409


class JobNotPausedError(ProblemError):
    """The job is not paused and cannot be resumed."""

    code, status = "job-not-paused", 409


class JobNotRunningError(ProblemError):
    """The job is not running."""

    code, status = "job-not-running", 409


class TrialAlreadyEndedError(ProblemError):
    """The trial has ended and cannot be cancelled."""

    code, status = "trial-already-ended", 409


class ModelNameTakenError(ProblemError):
    """The name of the registered model belongs to another project."""

    code, status = "model-name-taken", 409


class ModelInUseError(ProblemError):
    """An alias or a job that has not ended names the model."""

    code, status = "model-in-use", 409


class PreconditionFailedError(ProblemError):
    """What is to be changed is no longer as the client has seen it."""

    code, status = "precondition-failed", 412


class RequestTooLargeError(ProblemError):
    """The body is larger than this endpoint reads."""

    code, status = "request-too-large", 413


class UploadTooLargeError(ProblemError):
    """The uploaded file is larger than this service accepts."""

    code, status = "upload-too-large", 413


class RangeNotSatisfiableError(ProblemError):
    """The file is shorter than the part that is asked for."""

    code, status = "range-not-satisfiable", 416

    def __init__(self, detail: str, size_bytes: int) -> None:
        super().__init__(detail)
        self.headers = {"Content-Range": f"bytes */{size_bytes}"}  # type: ignore[misc]  # per instance


class RequestInvalidError(ProblemError):
    """A parameter of the request is not valid."""

    code, status = "request-invalid", 422


class SpecInvalidError(ProblemError):
    """The job's specification is not valid."""

    code, status = "spec-invalid", 422


class IdempotencyKeyReusedError(ProblemError):
    """The key was sent before, with a request for something else."""

    code, status = "idempotency-key-reused", 422


class ReferenceNotAllowedError(ProblemError):
    """The specification names something that jobs may not read."""

    code, status = "reference-not-allowed", 422


class SecretInSpecError(ProblemError):
    """The specification holds a secret, which everyone could read who sees the job."""

    code, status = "secret-in-spec", 422


class UploadMalformedError(ProblemError):
    """The upload is not the form that this endpoint reads."""

    code, status = "upload-malformed", 422


class DatasetInvalidError(ProblemError):
    """A row of the uploaded file is not valid."""

    code, status = "dataset-invalid", 422


class JobWouldFailError(ProblemError):
    """The job would fail.

    Each is answered with the code of the failure in the place of this class's.
    """

    code, status = "job-would-fail", 422

    def __init__(self, detail: str, failure: FailureCode) -> None:
        super().__init__(detail)
        self.code = failure  # type: ignore[misc]  # per instance here


class RateLimitedError(ProblemError):
    """The API key, or an address with keys that are not valid, asks too often."""

    code, status = "rate-limited", 429

    def __init__(self, detail: str, retry_after_s: int) -> None:
        super().__init__(detail)
        self.headers = {"Retry-After": str(retry_after_s)}  # type: ignore[misc]  # per instance


class DryRunsBusyError(ProblemError):
    """As many dry runs as this service does at a time are under way."""

    code, status = "dry-runs-busy", 429
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "10"}


class DryRunTimeoutError(ProblemError):
    """The cluster took too long to answer a dry run."""

    code, status = "dry-run-timeout", 504


class InternalError(ProblemError):
    """The service failed in a way that nobody foresaw."""

    code, status = "internal", 500


class StorageFullError(ProblemError):
    """There is no room for a file on the service's disk."""

    code, status = "storage-full", 507


class UnavailableError(ProblemError):
    """A part of the system does not answer."""

    code, status = "unavailable", 503
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "5"}


class DatabaseUnavailableError(UnavailableError):
    """The service's database does not answer."""

    code, status = "database-unavailable", 503


class RayUnavailableError(UnavailableError):
    """The Ray cluster does not answer."""

    code, status = "ray-unavailable", 503


class MlflowUnavailableError(UnavailableError):
    """The MLflow server does not answer."""

    code, status = "mlflow-unavailable", 503


class StorageUnavailableError(UnavailableError):
    """The storage of uploaded files does not work."""

    code, status = "storage-unavailable", 503


def problems(*kinds: type[ProblemError]) -> dict[int | str, dict[str, Any]]:
    """What a route's `responses` say about the problems it can answer with."""
    documented: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        line = f"`{kind.code}`: {kind.title()}."
        if known := documented.get(kind.status):
            known["description"] += f" {line}"
            continue
        documented[kind.status] = {
            "description": line,
            "content": {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            },
        }
    return documented


def root_cause(error: BaseException) -> str:
    """The first line of the error that began a chain, such as "Connection refused"."""
    while (earlier := error.__cause__ or error.__context__) is not None:
        error = earlier
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__

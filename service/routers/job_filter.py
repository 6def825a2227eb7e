"""The parameters by which a list of jobs is filtered."""

import re
from typing import Annotated, Any

from fastapi import Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError

from jobs.label_specs import NAME_PATTERN, Label, MetadataValue
from jobs.specs import JobKind
from service.job_filters import JobFilter
from service.states import JobStatus

_METADATA = re.compile(r"metadata\[(.*)\]", re.DOTALL)
_PAIRS: TypeAdapter[dict[str, str]] = TypeAdapter(dict[Label, MetadataValue])

METADATA_PARAMETER: dict[str, Any] = {
    "name": "metadata",
    "in": "query",
    "description": "Jobs with this metadata alone, as in `metadata[team]=maths`; may be repeated.",
    "style": "deepObject",
    "explode": True,
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
}
"""How OpenAPI tells of parameters whose names the client makes up."""


async def _job_filter(
    request: Request,
    status: Annotated[JobStatus | None, Query(description="Jobs of this status alone.")] = None,
    kind: Annotated[JobKind | None, Query(description="Jobs of this kind alone.")] = None,
    name: Annotated[
        str | None, Query(pattern=NAME_PATTERN, description="Jobs of this name alone.")
    ] = None,
    project: Annotated[
        str | None, Query(pattern=NAME_PATTERN, description="Jobs of this project alone.")
    ] = None,
    tag: Annotated[
        list[Label] | None,
        Query(max_length=16, description="Jobs with this tag alone; may be repeated."),
    ] = None,
) -> JobFilter:
    return JobFilter(status, kind, name, project, tuple(tag or ()), metadata_of(request))


JobFilterPart = Annotated[JobFilter, Depends(_job_filter)]


def metadata_of(request: Request) -> dict[str, str]:
    """What parameters such as `metadata[team]=maths` ask for.

    Raises:
        RequestValidationError: If no metadata could be like that.
    """
    pairs = {
        named[1]: value
        for key, value in request.query_params.multi_items()
        if (named := _METADATA.fullmatch(key))
    }
    try:
        return _PAIRS.validate_python(pairs)
    except ValidationError as error:
        complaints = [
            each | {"loc": ("query", f"metadata[{each['loc'][0]}]")} for each in error.errors()
        ]
        raise RequestValidationError(complaints) from error

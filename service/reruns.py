"""The spec of a job that is to be done again, with some fields changed."""

from collections.abc import Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from jobs.specs import JobSpec
from service.errors import FieldError, SpecInvalidError
from service.problems import explain_validation, readable
from service.tables import Job

_SPEC: TypeAdapter[JobSpec] = TypeAdapter(JobSpec)
_TELLING_FIELDS = ("method", "kind")
"""Fields that say which others an object has."""


class RerunRequest(BaseModel):
    """What is to be different when a job is done again."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    overrides: dict[str, Any] = Field(default_factory=dict)
    """Values by field, nested like the spec; members of lists are named by number, from 0."""


def spec_of_rerun(job: Job, overrides: Mapping[str, Any]) -> JobSpec:
    """A job's spec with some of its fields changed.

    Args:
        job: The job, whatever became of it.
        overrides: Nested like the spec. An object changes the fields that it names, or, where it
            names another `method` or `kind`, replaces the whole; a member of a list is named by
            its number, from 0; anything else, also null, is the new value.

    Raises:
        SpecInvalidError: If the spec that this makes is not valid.
    """
    if overrides.get("kind", job.kind) != job.kind:
        raise _refused("kind", f"{job.id} is a job of the kind {job.kind}, and so is every rerun")
    document = _merged(job.spec, overrides, field="")
    try:
        return _SPEC.validate_python(document)
    except ValidationError as error:
        complaints = [each | {"loc": ("body", *each["loc"][1:])} for each in error.errors()]
        raise explain_validation(RequestValidationError(complaints, body=document)) from error


def _merged(value: object, override: object, field: str) -> object:
    if not isinstance(override, Mapping):
        return override
    if isinstance(value, list):
        return _merged_list(value, override, field)
    if not isinstance(value, Mapping) or _is_of_another_form(value, override):
        return override
    # The fields of a search's space hold one range each, whose only key says what it is.
    is_space = field == "space"
    return dict(value) | {
        key: given if is_space else _merged(value.get(key), given, f"{field}.{key}".lstrip("."))
        for key, given in override.items()
    }


def _merged_list(items: list[object], override: Mapping[str, Any], field: str) -> list[object]:
    changed = list(items)
    for key, given in override.items():
        if not (key.isascii() and key.isdecimal() and int(key) < len(items)):
            number = f"it has {len(items)} members, which are named by their numbers from 0"
            raise _refused(f"{field}.{key}", f"there is no such member: {number}")
        changed[int(key)] = _merged(items[int(key)], given, f"{field}.{key}")
    return changed


def _is_of_another_form(value: Mapping[str, Any], override: Mapping[str, Any]) -> bool:
    return any(
        key in value and key in override and value[key] != override[key] for key in _TELLING_FIELDS
    )


def _refused(field: str, message: str) -> SpecInvalidError:
    field = readable(field)
    return SpecInvalidError(f"{field}: {message}", [FieldError(field=field, message=message)])

"""API keys and the audit log: what a request for a key says, and what the API answers."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from service.answers import Answer
from service.callers import DEFAULT_PROJECT, Scope


def _in_the_future(moment: datetime) -> datetime:
    if moment <= datetime.now(UTC):
        raise ValueError("give a moment that is still to come")
    return moment


ProjectName = Annotated[
    str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?$")
]
KeyName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]
Future = Annotated[AwareDatetime, AfterValidator(_in_the_future)]


class KeyCreate(BaseModel):
    """A key to be made."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: KeyName
    """What people call it."""

    project: ProjectName = DEFAULT_PROJECT
    """Whose jobs and data sets it opens."""

    scopes: tuple[Scope, ...] = Field((Scope.SUBMIT,), min_length=1, max_length=len(Scope))
    """What it may do: `read`; `submit`, which includes it; `scrape`, to read /metrics alone;
    `admin`, which includes all."""

    expires_at: Future | None = None
    """When it stops to be valid, with a time zone; never by default."""


class KeyRead(Answer):
    """An API key, without its secret."""

    id: str
    """Stable id, `key-` and 16 hexadecimal digits, which the key holds, too."""

    name: str
    """What people call it."""

    project: str
    """Whose jobs and data sets it opens; an administrator's opens those of all projects."""

    scopes: list[Scope]
    """What it may do."""

    created_at: datetime
    """When it was made."""

    expires_at: datetime | None = None
    """When it stops to be valid."""

    revoked_at: datetime | None = None
    """When it was revoked."""

    last_used_at: datetime | None = None
    """When it was used last; up to a minute late."""


class KeyCreated(KeyRead):
    """A key that was just made."""

    key: str
    """The key itself; it is answered this once and stored nowhere."""


class AuditRead(Answer):
    """A change that somebody made, or was refused."""

    id: int
    """Grows with time."""

    created_at: datetime
    """When it was done."""

    key_id: str | None = None
    """The key that asked for it; null for an operator at the database."""

    project: str
    """Whose the target is; of a refusal, the project of the key."""

    action: str
    """What was done, such as `job.cancel`; of a refusal, the method."""

    target: str
    """Id of what was changed; of a refusal, the path."""

    request_id: str | None = None
    """The answer's X-Request-ID."""

    outcome: str
    """`done`, or the code of the problem, such as `forbidden`."""

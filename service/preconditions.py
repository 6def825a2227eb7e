"""Which state of something a client has seen, and whether that is still the current one."""

import re

from service.errors import PreconditionFailedError
from service.tables import Job

_ETAG = re.compile(r'(?:W/)?"[^"]*"')


def etag(job: Job) -> str:
    """The `ETag` of a job's record."""
    return f'"{job.revision}"'


def require_match(job: Job, if_match: str | None) -> None:
    """Refuse a change of a job that is no longer as its client has seen it.

    Args:
        job: The job, whose row is locked.
        if_match: Header of the request: "*", or ETags; nothing is asked for without it. A weak one
            (`W/"…"`) matches nothing, as RFC 9110 has it.

    Raises:
        PreconditionFailedError: If the job has another ETag.
    """
    if if_match is not None and not matches(etag(job), if_match):
        raise PreconditionFailedError(
            f"{job.id} has changed: its ETag is {etag(job)}, and If-Match is {if_match}; "
            "read the job again and decide anew"
        )


def matches(current: str | None, wanted: str) -> bool:
    """Whether a header names the current state.

    Args:
        current: ETag of what is there; None if there is nothing.
        wanted: ETags, or "*" for whatever is there.
    """
    if wanted.strip() == "*":
        return current is not None
    return current in _ETAG.findall(wanted)

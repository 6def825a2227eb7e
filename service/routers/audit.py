"""Who changed what; for administrators."""

from typing import Annotated

from fastapi import APIRouter, Query

from service.answers import Page
from service.audit import AuditFilter
from service.dependencies import AuditPart
from service.errors import RequestInvalidError, problems
from service.key_answers import AuditRead

router = APIRouter(prefix="/audit", tags=["keys"])

_Entries = Page[AuditRead]
_MAX_ID = 2**63 - 1
_Exact = Annotated[
    str | None, Query(max_length=200, pattern=r"^[!-~ ]*$", description="Entries of this alone.")
]


@router.get("", responses=problems(RequestInvalidError))
async def list_audit_entries(
    audit: AuditPart,
    key_id: _Exact = None,
    project: _Exact = None,
    action: _Exact = None,
    target: _Exact = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[
        int | None, Query(ge=0, le=_MAX_ID, description="Last id of the page before.")
    ] = None,
) -> _Entries:
    """List what was changed with which key, and what was refused, newest first."""
    wanted = AuditFilter(key_id=key_id, project=project, action=action, target=target)
    found, has_more = await audit.page(wanted, limit, after)
    data = [AuditRead.model_validate(entry, from_attributes=True) for entry in found]
    return _Entries(data=data, has_more=has_more)

"""The audit log: who changed what, and what was refused for want of a scope.

An entry is written in the transaction of the change it tells of, so neither is there without the
other; only a trial's cancellation, which MLflow keeps, is noted right after it. Entries hold names
and ids, never secrets or what a request carried.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from service.callers import Caller
from service.database import Database
from service.tables import AuditEntry, utc_now

_MAX_TARGET_CHARS = 200


@dataclass(frozen=True)
class AuditFilter:
    """Which entries are asked for; None leaves a field open."""

    key_id: str | None = None
    project: str | None = None
    action: str | None = None
    target: str | None = None


class AuditLog:
    """The entries of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def note(
        self, caller: Caller | None, action: str, target: str, project: str, outcome: str = "done"
    ) -> None:
        """Add an entry in a transaction of its own, for what no transaction holds."""
        async with self._database.writing() as session:
            record(session, caller, action, target, project, outcome)

    async def page(
        self, wanted: AuditFilter, limit: int, after: int | None = None
    ) -> tuple[Sequence[AuditEntry], bool]:
        """Entries, newest first, and whether there are more.

        Args:
            wanted: Which.
            limit: Most entries that are returned.
            after: Id of the last entry of the page before.
        """
        query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit + 1)
        for name in ("key_id", "project", "action", "target"):
            if (value := getattr(wanted, name)) is not None:
                query = query.where(getattr(AuditEntry, name) == value)
        if after is not None:
            query = query.where(AuditEntry.id < after)
        async with self._database.reading() as session:
            entries = (await session.scalars(query)).all()
        return entries[:limit], len(entries) > limit


def record(
    session: AsyncSession,
    caller: Caller | None,
    action: str,
    target: str,
    project: str,
    outcome: str = "done",
) -> None:
    """Add an entry to a transaction.

    Args:
        session: The transaction of the change.
        caller: Who asked for it; None for an operator at the database.
        action: What was done, such as job.cancel.
        target: Id of what was changed.
        project: Whose that is.
        outcome: "done", or the code of the problem that it was refused with.
    """
    session.add(
        AuditEntry(
            created_at=utc_now(),
            key_id=caller and caller.key_id,
            project=project,
            action=action,
            target=target[:_MAX_TARGET_CHARS],
            request_id=caller and caller.request_id,
            outcome=outcome,
        )
    )

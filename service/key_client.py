"""The part of the client that is for administrators: API keys and the audit log."""

from collections.abc import Sequence
from datetime import datetime
from urllib.parse import quote

from service.answers import Page
from service.callers import Scope
from service.connection import Connection
from service.key_answers import AuditRead, KeyCreated, KeyRead


class KeyClient:
    """Keys and audit entries of one service; every method raises a `ClientError`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(
        self,
        name: str,
        *,
        project: str = "default",
        scopes: Sequence[Scope] = (Scope.SUBMIT,),
        expires_at: datetime | None = None,
    ) -> KeyCreated:
        """Make a key; its text is in this answer alone."""
        body = {
            "name": name,
            "project": project,
            "scopes": list(scopes),
            "expires_at": expires_at and expires_at.isoformat(),
        }
        return self._connection.post(KeyCreated, "/v1/keys", body)

    def get(self, key_id: str) -> KeyRead:
        """Return what is known about a key."""
        return self._connection.get(KeyRead, _key_path(key_id))

    def list(self, *, limit: int = 50, after: str | None = None) -> Page[KeyRead]:
        """Return keys of all projects, newest first; `after` is the last id of the page before."""
        return self._connection.get(Page[KeyRead], "/v1/keys", limit=limit, after=after)

    def revoke(self, key_id: str) -> KeyRead:
        """End a key for good."""
        return self._connection.post(KeyRead, f"{_key_path(key_id)}/revoke")

    def audit(
        self,
        *,
        key_id: str | None = None,
        project: str | None = None,
        action: str | None = None,
        target: str | None = None,
        limit: int = 100,
        after: int | None = None,
    ) -> Page[AuditRead]:
        """Return what was changed, newest first.

        Args:
            key_id: Only with this key.
            project: Only what belongs to this project.
            action: Only this, such as job.cancel.
            target: Only of what has this id.
            limit: Most entries that are returned.
            after: Last id of the page before.
        """
        return self._connection.get(
            Page[AuditRead],
            "/v1/audit",
            key_id=key_id,
            project=project,
            action=action,
            target=target,
            limit=limit,
            after=after,
        )


def _key_path(key_id: str) -> str:
    return f"/v1/keys/{quote(key_id, safe='')}"

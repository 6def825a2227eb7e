"""Who a request comes from: a key, its project, and what it may do."""

from dataclasses import dataclass
from enum import StrEnum

from service.errors import ForbiddenError

DEFAULT_PROJECT = "default"
"""The project of what belongs to no other."""


class Scope(StrEnum):
    """What a key may do; `submit` includes `read`, and `admin` all."""

    SCRAPE = "scrape"
    """Read the service's own figures at /metrics, and nothing else."""

    READ = "read"
    """See the jobs, data sets and reports of the key's project."""

    SUBMIT = "submit"
    """Change them: upload, submit, pause, resume, cancel, delete."""

    ADMIN = "admin"
    """See and change those of every project; manage keys and read the audit log."""

    @property
    def implied(self) -> frozenset["Scope"]:
        """The scope itself and those that it includes."""
        return _IMPLIED[self]


_IMPLIED = {
    Scope.SCRAPE: frozenset({Scope.SCRAPE}),
    Scope.READ: frozenset({Scope.READ}),
    Scope.SUBMIT: frozenset({Scope.READ, Scope.SUBMIT}),
    Scope.ADMIN: frozenset(Scope),
}


@dataclass(frozen=True)
class Caller:
    """The key that a request came with."""

    key_id: str
    project: str
    scopes: frozenset[Scope]
    """All that the key may do, with the scopes that others include."""

    request_id: str

    @property
    def only_project(self) -> str | None:
        """The one project whose jobs and files exist for this caller; None: those of all do."""
        return None if Scope.ADMIN in self.scopes else self.project

    def require(self, scope: Scope) -> None:
        """Go on only with a scope.

        Raises:
            ForbiddenError: If the key does not have it.
        """
        if scope not in self.scopes:
            raise ForbiddenError(
                f"this needs the scope `{scope}`, which the key {self.key_id} does not have; "
                "ask an administrator for a key with it"
            )


def all_scopes(granted: list[str]) -> frozenset[Scope]:
    """What a key may do that was granted these scopes."""
    return frozenset[Scope]().union(*(Scope(name).implied for name in granted))


def visible_project(caller: Caller | None) -> str | None:
    """The one project that exists for a caller; None: all do, as for the service itself."""
    return None if caller is None else caller.only_project

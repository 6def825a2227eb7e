"""Changes of registered models: aliases moved and removed, versions and models deleted.

MLflow keeps them, so each is noted in the audit log right after it. MLflow cannot compare and set:
a change with a precondition looks first, and those of one model wait for each other in this
process. Another replica, or a job that promotes, can still come between within milliseconds.
"""

import asyncio
from collections.abc import Sequence
from copy import copy
from typing import Self
from weakref import WeakValueDictionary

from service.audit import AuditLog
from service.boundaries import Registry
from service.callers import Caller
from service.errors import (
    ModelAliasNotFoundError,
    ModelInUseError,
    ModelVersionNotFoundError,
    PreconditionFailedError,
    RefusedError,
)
from service.model_uses import ModelUses
from service.models import Models, OwnedModel
from service.preconditions import matches


def alias_etag(version: int) -> str:
    """The `ETag` of an alias that points at a version."""
    return f'"{version}"'


class ModelChanges:
    """Changes registered models; those that `acting_for` answers act for one caller.

    Args:
        models: Knows them.
        uses: Knows which jobs need them.
        registry: Has them.
        audit: Notes what users do to them.
    """

    def __init__(
        self, models: Models, uses: ModelUses, registry: Registry, audit: AuditLog
    ) -> None:
        self._models = models
        self._uses = uses
        self._registry = registry
        self._audit = audit
        self._caller: Caller | None = None
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def acting_for(self, caller: Caller) -> Self:
        """The same for a caller: models of others are not found, and changes are audited."""
        acting = copy(self)
        acting._models = self._models.acting_for(caller)
        acting._uses = self._uses.acting_for(caller)
        acting._caller = caller
        return acting

    async def set_alias(
        self,
        name: str,
        alias: str,
        version: int,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> OwnedModel:
        """Point an alias at a version, wherever it pointed before; the model as it is then.

        Args:
            name: The model.
            alias: The alias.
            version: The number of the version.
            if_match: ETags of which the alias must have one; "*" if it must exist.
            if_none_match: ETags of which it must have none; "*" if it must not exist.

        Raises:
            MlflowUnavailableError: If MLflow does not answer.
            ModelNotFoundError: If there is no such model.
            ModelVersionNotFoundError: If it has no such version.
            PreconditionFailedError: If the alias is not where it should be.
        """
        async with self._lock(name):
            owner = await self._models.get(name)
            _require_place(owner, alias, if_match, if_none_match)
            if owner.model.aliases.get(alias) == version:
                return owner
            await self._models.version(name, str(version))
            try:
                await self._registry.set_alias(name, alias, version)
            except RefusedError as error:
                raise ModelVersionNotFoundError(
                    f"version {version} of {name!r} has just been deleted"
                ) from error
            await self._note("alias.set", f"{name}@{alias}", owner)
            return await self._models.get(name)

    async def remove_alias(self, name: str, alias: str, if_match: str | None = None) -> None:
        """Remove an alias.

        Raises:
            MlflowUnavailableError: If MLflow does not answer.
            ModelAliasNotFoundError: If there is no such alias.
            ModelNotFoundError: If there is no such model.
            PreconditionFailedError: If the alias is not where it should be.
        """
        async with self._lock(name):
            owner = await self._models.get(name)
            self._models.version_of_alias(owner, alias)
            _require_place(owner, alias, if_match, None)
            try:
                await self._registry.remove_alias(name, alias)
            except RefusedError as error:
                raise ModelAliasNotFoundError(f"{name!r} has no alias {alias!r}") from error
            await self._note("alias.remove", f"{name}@{alias}", owner)

    async def delete_version(self, name: str, selector: str) -> int:
        """Delete a version that nothing needs; the number that it had.

        Raises:
            MlflowUnavailableError: If MLflow does not answer.
            ModelAliasNotFoundError: If the model has no such alias.
            ModelInUseError: If an alias points at it, or a job that has not ended names it.
            ModelNotFoundError: If there is no such model.
            ModelVersionNotFoundError: If it has no such version.
        """
        async with self._lock(name):
            found = await self._models.version(name, selector)
            number = found.version.version
            what = f"version {number} of {name!r}"
            _require_no_alias(what, found.aliases)
            _require_no_use(what, await self._uses.of_version(found.version))
            try:
                await self._registry.delete_version(name, number)
            except RefusedError as error:
                raise ModelVersionNotFoundError(f"{what} has just been deleted") from error
            await self._note("model_version.delete", f"{name}/{number}", found.owner)
            return number

    async def delete_model(self, name: str) -> None:
        """Delete a model with its versions, if nothing needs any; the name stays its project's.

        Raises:
            MlflowUnavailableError: If MLflow does not answer.
            ModelInUseError: If it has an alias, or a job that has not ended reads or writes it.
            ModelNotFoundError: If there is no such model.
        """
        async with self._lock(name):
            owner = await self._models.get(name)
            what = f"the registered model {name!r}"
            _require_no_alias(what, sorted(owner.model.aliases))
            _require_no_use(what, await self._uses.of_model(name))
            try:
                await self._registry.delete_model(name)
            except RefusedError as error:
                # Somebody else was faster, which is as good: it is gone.
                if await self._registry.model(name) is not None:
                    raise ModelInUseError(f"{what} cannot be deleted: {error}") from error
            await self._note("model.delete", name, owner)

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    async def _note(self, action: str, target: str, owner: OwnedModel) -> None:
        await self._audit.note(self._caller, action, target, owner.project)


def _require_place(
    owner: OwnedModel, alias: str, if_match: str | None, if_none_match: str | None
) -> None:
    """Refuse to touch an alias that is not where the client has seen it."""
    version = owner.model.aliases.get(alias)
    current = None if version is None else alias_etag(version)
    if (if_match is None or matches(current, if_match)) and (
        if_none_match is None or not matches(current, if_none_match)
    ):
        return
    where = "does not exist" if version is None else f"points at version {version}"
    raise PreconditionFailedError(
        f"{owner.name}@{alias} {where}, which is not what the request asks for; "
        "read the alias again and decide anew"
    )


def _require_no_alias(what: str, aliases: Sequence[str]) -> None:
    if aliases:
        raise ModelInUseError(
            f"{what} has the alias {', '.join(aliases)}; move it or remove it first"
        )


def _require_no_use(what: str, uses: Sequence[str]) -> None:
    if uses:
        more = f" and {len(uses) - 3} more" if len(uses) > 3 else ""
        raise ModelInUseError(
            f"{what} is needed by {', '.join(uses[:3])}{more}; wait for the end, or cancel it"
        )

"""Registered models and their versions: looked up in MLflow, each project its own."""

import re
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Self

from service.boundaries import ModelVersion, RegisteredModel, Registry
from service.callers import DEFAULT_PROJECT, Caller
from service.database import Database
from service.errors import (
    ModelAliasNotFoundError,
    ModelNotFoundError,
    ModelVersionNotFoundError,
    RefusedError,
)
from service.model_names import all_owners, is_visible, owners_of

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,255}")
"""Names that references of specs can hold; MLflow allows others, which are not shown."""
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class OwnedModel:
    """A registered model and whose it is."""

    model: RegisteredModel
    project: str

    @property
    def name(self) -> str:
        """Its name."""
        return self.model.name

    def aliases_of(self, version: int) -> list[str]:
        """The aliases that point at a version, sorted."""
        return sorted(alias for alias, where in self.model.aliases.items() if where == version)


@dataclass(frozen=True)
class OwnedVersion:
    """A version and the model that it is of."""

    owner: OwnedModel
    version: ModelVersion

    @property
    def aliases(self) -> list[str]:
        """The aliases that point at it, sorted."""
        return self.owner.aliases_of(self.version.version)


class Models:
    """The registered models; those that `acting_for` answers are one caller's alone.

    Args:
        database: Knows whose they are.
        registry: Has them.
    """

    def __init__(self, database: Database, registry: Registry) -> None:
        self._database = database
        self._registry = registry
        self._caller: Caller | None = None

    def acting_for(self, caller: Caller) -> Self:
        """The models as they are for a caller: others are not found."""
        acting = copy(self)
        acting._caller = caller
        return acting

    async def page(self, limit: int, after: str | None) -> tuple[Sequence[OwnedModel], bool]:
        """Models by name, and whether there are more.

        Args:
            limit: Most models that are returned.
            after: Name of the last model of the page before.

        Raises:
            MlflowUnavailableError: If MLflow does not answer.
        """
        async with self._database.reading() as session:
            owners = await all_owners(session)
        found = [
            OwnedModel(model, owners.get(model.name, DEFAULT_PROJECT))
            for model in await self._registry.models()
            if _NAME.fullmatch(model.name) and is_visible(owners.get(model.name), self._caller)
        ]
        # MLflow's order is that of its database, which need not be this one.
        found = sorted((each for each in found if each.name > (after or "")), key=_name_of)
        return found[:limit], len(found) > limit

    async def get(self, name: str) -> OwnedModel:
        """A model.

        Raises:
            MlflowUnavailableError: If MLflow does not answer.
            ModelNotFoundError: If there is none of this name.
        """
        if _NAME.fullmatch(name):
            async with self._database.reading() as session:
                owner = (await owners_of(session, [name])).get(name)
            if is_visible(owner, self._caller):
                model = await self._registry.model(name)
                if model is not None:
                    return OwnedModel(model, owner or DEFAULT_PROJECT)
        raise ModelNotFoundError(
            f"there is no registered model {name!r}; GET /v1/models lists them"
        )

    async def versions(
        self, name: str, limit: int, after: int | None
    ) -> tuple[Sequence[OwnedVersion], bool]:
        """Versions of a model, newest first, and whether there are more.

        Args:
            name: The model.
            limit: Most versions that are returned.
            after: Number of the last version of the page before.

        Raises:
            MlflowUnavailableError: If MLflow does not answer.
            ModelNotFoundError: If there is no such model.
        """
        owner = await self.get(name)
        found = [
            OwnedVersion(owner, version)
            for version in await self._registry.versions(name, limit + 1, after)
        ]
        return found[:limit], len(found) > limit

    async def version(self, name: str, selector: str) -> OwnedVersion:
        """A version.

        Args:
            name: The model.
            selector: The number of the version, or @ and an alias that points at it.

        Raises:
            MlflowUnavailableError: If MLflow does not answer.
            ModelAliasNotFoundError: If the model has no such alias.
            ModelNotFoundError: If there is no such model.
            ModelVersionNotFoundError: If the model has no such version.
        """
        owner = await self.get(name)
        number: int | None = None
        if selector.startswith("@"):
            number = self.version_of_alias(owner, selector[1:])
        elif _NUMBER.fullmatch(selector):
            number = int(selector)
        try:
            found = number and await self._registry.version(name, number)
        except RefusedError:
            found = None
        if not found:
            raise ModelVersionNotFoundError(
                f"{name!r} has no version {selector!r}; give a number of "
                f"GET /v1/models/{name}/versions, or @ and an alias"
            )
        return OwnedVersion(owner, found)

    def version_of_alias(self, owner: OwnedModel, alias: str) -> int:
        """The number of the version that an alias points at.

        Raises:
            ModelAliasNotFoundError: If the model has no such alias.
        """
        if alias not in owner.model.aliases:
            names = ", ".join(sorted(owner.model.aliases)) or "none"
            raise ModelAliasNotFoundError(f"{owner.name!r} has no alias {alias!r}; it has {names}")
        return owner.model.aliases[alias]


def _name_of(owned: OwnedModel) -> str:
    return owned.name

"""The part of the client that is about registered models."""

from typing import BinaryIO
from urllib.parse import quote

from service.answers import Page
from service.connection import Connection
from service.model_answers import AliasRead, LineageRead, ModelRead, VersionRead

_DOWNLOAD_SILENCE_S = 600.0
"""The service fetches an adapter from MLflow before it sends the first byte of it."""


class ModelClient:
    """Registered models of one service; every method raises a `ClientError`.

    A `version` is a number, or "@" and an alias.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list(self, *, limit: int = 50, after: str | None = None) -> Page[ModelRead]:
        """Return registered models by name; `after` is the last name of the page before."""
        return self._connection.get(Page[ModelRead], "/v1/models", limit=limit, after=after)

    def get(self, name: str) -> ModelRead:
        """Return a registered model."""
        return self._connection.get(ModelRead, _path(name))

    def list_versions(
        self, name: str, *, limit: int = 50, after: int | None = None
    ) -> Page[VersionRead]:
        """Return versions, newest first; `after` is the last number of the page before."""
        path = f"{_path(name)}/versions"
        return self._connection.get(Page[VersionRead], path, limit=limit, after=after)

    def get_version(self, name: str, version: str) -> VersionRead:
        """Return a version."""
        return self._connection.get(VersionRead, _version_path(name, version))

    def lineage(self, name: str, version: str) -> LineageRead:
        """Return where a version comes from and how it was judged."""
        return self._connection.get(LineageRead, f"{_version_path(name, version)}/lineage")

    def download(self, name: str, version: str, file: BinaryIO) -> None:
        """Write a version's adapter to a file, as a tar."""
        path = f"{_version_path(name, version)}/download"
        self._connection.download(path, file, silence_s=_DOWNLOAD_SILENCE_S)

    def promote(
        self, name: str, alias: str, version: int, *, only_from: int | None = None
    ) -> AliasRead:
        """Point an alias at a version.

        Args:
            name: The registered model.
            alias: The alias.
            version: Number of the version.
            only_from: Number of the version that it has to point at now; by default any, or none.
        """
        headers = None if only_from is None else {"If-Match": f'"{only_from}"'}
        path = f"{_path(name)}/aliases/{quote(alias, safe='')}"
        return self._connection.put(AliasRead, path, {"version": version}, headers=headers)

    def remove_alias(self, name: str, alias: str) -> None:
        """Remove an alias; its version stays."""
        self._connection.delete(f"{_path(name)}/aliases/{quote(alias, safe='')}")

    def delete_version(self, name: str, version: int) -> None:
        """Delete a version that no alias and no job needs."""
        self._connection.delete(_version_path(name, str(version)))

    def delete(self, name: str) -> None:
        """Delete a registered model that has no alias and that no job needs, with its versions."""
        self._connection.delete(_path(name))


def _path(name: str) -> str:
    return f"/v1/models/{quote(name, safe='')}"


def _version_path(name: str, version: str) -> str:
    return f"{_path(name)}/versions/{quote(version, safe='')}"

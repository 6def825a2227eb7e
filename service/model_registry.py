"""The model registry of the MLflow server."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from mlflow.entities import model_registry as entities
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from service.boundaries import Artifact, ModelVersion, RegisteredModel
from service.mlflow_server import MlflowServer, is_missing, moment

_T = TypeVar("_T")
_MODELS_PER_PAGE = 1000


class MlflowRegistry:
    """The registered models of one server."""

    def __init__(self, server: MlflowServer) -> None:
        self._uri = server.uri
        self._client = server.client
        self._call = server.call

    async def models(self) -> Sequence[RegisteredModel]:
        """Every registered model."""

        def search() -> Sequence[RegisteredModel]:
            found: list[RegisteredModel] = []
            token: str | None = None
            while True:
                page = self._client.search_registered_models(
                    max_results=_MODELS_PER_PAGE, page_token=token
                )
                found += [_model(each) for each in page]
                token = page.token
                if not token:
                    return found

        return await self._call(search)

    async def model(self, name: str) -> RegisteredModel | None:
        """A registered model, or None."""
        return await self._call(
            lambda: _unless_missing(lambda: _model(self._client.get_registered_model(name)))
        )

    async def versions(
        self, name: str, limit: int, below: int | None = None
    ) -> Sequence[ModelVersion]:
        """Versions of a model, newest first."""
        wanted = f"name = '{name}'"
        if below is not None:
            wanted += f" AND version_number < {below}"
        found = await self._call(
            lambda: self._client.search_model_versions(
                wanted, max_results=limit, order_by=["version_number DESC"]
            )
        )
        return [_version(each) for each in found]

    async def version(self, name: str, version: int) -> ModelVersion | None:
        """A version, or None."""
        return await self._call(
            lambda: _unless_missing(
                lambda: _version(self._client.get_model_version(name, str(version)))
            )
        )

    async def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point an alias at a version, wherever it pointed before."""
        await self._call(lambda: self._client.set_registered_model_alias(name, alias, str(version)))

    async def remove_alias(self, name: str, alias: str) -> None:
        """Remove an alias; one that is not there is no error."""
        await self._call(
            lambda: _unless_missing(lambda: self._client.delete_registered_model_alias(name, alias))
        )

    async def delete_version(self, name: str, version: int) -> None:
        """Delete a version; the model does not give its number again."""
        await self._call(lambda: self._client.delete_model_version(name, str(version)))

    async def delete_model(self, name: str) -> None:
        """Delete a registered model with all its versions."""
        await self._call(lambda: self._client.delete_registered_model(name))

    async def files(self, name: str, version: int) -> Sequence[Artifact]:
        """The files at the root of a version."""

        def find() -> Sequence[Artifact]:
            found = self._artifacts(name, version).list_artifacts()
            return [Artifact(each.path, each.file_size or 0) for each in found if not each.is_dir]

        return await self._call(find)

    async def fetch(self, name: str, version: int, path: str, folder: Path) -> Path:
        """Download one of the files that `files` has listed into a folder, and say where it is."""
        return await self._call(
            lambda: Path(self._artifacts(name, version).download_artifacts(path, str(folder)))
        )

    def _artifacts(self, name: str, version: int) -> ArtifactRepository:
        # Everything by name, since the global address of MLflow may be another server's.
        address = self._client.get_model_version_download_uri(name, str(version))
        return get_artifact_repository(address, self._uri, self._uri)


def _unless_missing(request: Callable[[], _T]) -> _T | None:
    try:
        return request()
    except MlflowException as error:
        if is_missing(error):
            return None
        raise


def _model(model: entities.RegisteredModel) -> RegisteredModel:
    newest = [int(version.version) for version in model.latest_versions]
    return RegisteredModel(
        name=model.name,
        created_at=moment(model.creation_timestamp),
        aliases={alias: int(version) for alias, version in model.aliases.items()},
        newest_version=max(newest, default=None),
    )


def _version(version: entities.ModelVersion) -> ModelVersion:
    return ModelVersion(
        name=version.name,
        version=int(version.version),
        created_at=moment(version.creation_timestamp),
        run_id=version.run_id or None,
        tags=version.tags,
    )

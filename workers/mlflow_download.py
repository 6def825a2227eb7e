"""Fetching a model that is named by an MLflow URI, once for each machine."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workers.cache import cache_folder
from workers.errors import (
    AdapterUnusableError,
    BaseModelNotFoundError,
    BaseModelUnusableError,
    ReferenceNotAllowedError,
    WorkerError,
)
from workers.reach import reach_of_this_process

MLFLOW_SCHEMES = ("models:/", "runs:/")


def download_model(uri: str) -> Path:
    """Download the base model behind a `models:/…` or `runs:/…` URI into a cache and return it.

    An alias is resolved to its model version first, since what it points at may change; versions,
    logged models and runs do not, so a second call, or another rank of this machine, finds
    the files in place.

    Raises:
        BaseModelNotFoundError: If MLflow does not have it or does not answer.
        BaseModelUnusableError: If MLflow is not installed here.
    """
    with explaining_mlflow(f"base_model {uri!r}", BaseModelNotFoundError):
        return _download(uri)


def adapter_folder(reference: str, name: str) -> Path:
    """The folder of a saved adapter, downloaded as base models are if an MLflow URI names it.

    Args:
        reference: A folder or an MLflow URI.
        name: What the user calls the adapter, for messages.

    Raises:
        AdapterUnusableError: If MLflow does not have it or does not answer.
        BaseModelUnusableError: If MLflow is not installed here.
        ReferenceNotAllowedError: If jobs may not read it.
    """
    reach = reach_of_this_process()
    if reach is not None and (refusal := reach.refusal_of_adapter(reference)) is not None:
        raise ReferenceNotAllowedError(f"adapter of model {name!r}: {refusal}")
    if not reference.startswith(MLFLOW_SCHEMES):
        return Path(reference)
    with explaining_mlflow(f"adapter {reference!r} of model {name!r}", AdapterUnusableError):
        return _download(reference)


def pin(reference: str, what: str, error: type[WorkerError]) -> str:
    """A reference that names the same model for ever: an alias becomes the version it points at.

    Args:
        reference: An MLflow URI, or anything else, which stays as it is.
        what: Begins the message of the error, such as "adapter".
        error: What is raised if MLflow does not have the model or does not answer.

    Raises:
        BaseModelUnusableError: If MLflow is not installed here.
    """
    if not reference.startswith(MLFLOW_SCHEMES):
        return reference
    with explaining_mlflow(f"{what} {reference!r}", error):
        return _pin(reference)


@contextmanager
def explaining_mlflow(what: str, error: type[WorkerError]) -> Iterator[None]:
    """Say what could not be fetched, and from where."""
    try:
        import mlflow
    except ImportError as missing:
        raise BaseModelUnusableError(
            f"{what} is an MLflow URI and mlflow is not installed here; "
            "install it, or give a folder or a Hugging Face id"
        ) from missing
    try:
        yield
    # An unreachable server is a requests error, which is an OSError.
    except (mlflow.exceptions.MlflowException, OSError) as problem:
        reason = str(problem).splitlines()[0]
        raise error(
            f"{what} could not be fetched from MLflow at {mlflow.get_tracking_uri()}: "
            f"{reason}; check the URI and that the server answers"
        ) from problem


def _download(uri: str) -> Path:
    import mlflow

    pinned = _pin(uri)
    target = cache_folder("mlflow") / _key(pinned, mlflow.get_tracking_uri())
    if not target.exists():
        _download_whole(pinned, target)
    return target


def _pin(uri: str) -> str:
    """The URI with an alias or `latest` replaced by the version it points at now."""
    import mlflow

    name, at, alias = uri.removeprefix("models:/").partition("@")
    if uri.startswith("models:/") and at:
        version = mlflow.MlflowClient().get_model_version_by_alias(name, alias).version
        return f"models:/{name}/{version}"
    if uri.startswith("models:/") and uri.endswith("/latest"):
        name = name.removesuffix("/latest")
        versions = mlflow.MlflowClient().search_model_versions(f"name='{name}'")
        newest = max((int(found.version) for found in versions), default=0)
        return f"models:/{name}/{newest}"
    return uri


def _key(uri: str, tracking_uri: str) -> str:
    return hashlib.sha256(f"{tracking_uri}\n{uri}".encode()).hexdigest()[:32]


def _download_whole(uri: str, target: Path) -> None:
    """Download beside the target and rename, so that other ranks never see half a model."""
    import mlflow

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="partial-") as partial:
        local = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=partial)
        try:
            Path(local).rename(target)
        except OSError:
            if not target.exists():  # another rank was faster: its files are the same
                raise

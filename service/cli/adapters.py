"""Adapters out of the MLflow registry: references to model versions, download, how to load them."""

import json
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.cli.errors import CliError

_REFERENCE = re.compile(
    r"(?:models:/)?(?P<name>[^/:@]+)(?:@(?P<alias>[^/:@]+)|/(?P<version>[0-9]+))"
)


@dataclass(frozen=True)
class ModelReference:
    """A registered model version, as `NAME@ALIAS`, `NAME/VERSION`, or either after `models:/`."""

    name: str
    selector: str
    """`@ALIAS` or `/VERSION`."""

    @classmethod
    def parse(cls, text: str) -> "ModelReference":
        """Read a reference.

        Raises:
            CliError: If the text has another form.
        """
        match = _REFERENCE.fullmatch(text)
        if match is None:
            raise CliError(
                f"{text!r} names no adapter: give NAME@ALIAS, such as arithmetic@champion, "
                "or NAME/VERSION, such as arithmetic/1"
            )
        alias, version = match["alias"], match["version"]
        return cls(match["name"], f"@{alias}" if alias else f"/{version}")

    @property
    def uri(self) -> str:
        """MLflow's URI of the version."""
        return f"models:/{self}"

    def __str__(self) -> str:
        return f"{self.name}{self.selector}"


def pull_adapter(reference: ModelReference, tracking_uri: str, folder: Path) -> None:
    """Download an adapter into a folder that does not exist yet or is empty.

    The folder appears only when the download is complete.

    Args:
        reference: The model version.
        tracking_uri: MLflow server that has it.
        folder: Where its files go.

    Raises:
        CliError: If the folder holds something, or the registry has no such adapter.
    """
    require_empty(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".hyplora-pull-", dir=folder.parent) as scratch:
            downloaded = _download(reference, tracking_uri, Path(scratch) / "adapter")
            if not (downloaded / "adapter_config.json").is_file():
                raise CliError(f"{reference.uri} is a registered model, but no adapter")
            downloaded.rename(folder)
    except OSError as error:
        raise CliError(f"cannot write {folder}: {error.strerror or error}") from error


def require_empty(folder: Path) -> None:
    """Refuse to mix a download with files that are there.

    Raises:
        CliError: If the folder is a file or holds something.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CliError(f"{folder} is not an empty folder: give one that is new or empty")


def loading_snippet(folder: Path) -> str:
    """Return two lines of Python that load a downloaded adapter on its base model."""
    config = _read_config(folder)
    modules = ["hyplora"] if config.get("peft_type") == "HYPLORA" else []
    base = json.dumps(config.get("base_model_name_or_path"))
    if base.startswith(('"models:/', '"runs:/')):
        modules.append("mlflow.artifacts")
        base = f"mlflow.artifacts.download_artifacts({base})"
    return (
        f"import {', '.join([*modules, 'peft', 'transformers'])}\n"
        "model = peft.PeftModel.from_pretrained("
        f"transformers.AutoModelForCausalLM.from_pretrained({base}), {json.dumps(str(folder))})"
    )


def base_model_of(folder: Path) -> str:
    """Return the base model that an adapter was trained on, as its user named it.

    Raises:
        CliError: If the folder is no adapter or names none.
    """
    base_model = _read_config(folder).get("base_model_name_or_path")
    if not isinstance(base_model, str) or not base_model:
        raise CliError(f"{folder} names no base model: give one with --base-model")
    return base_model


def _download(reference: ModelReference, tracking_uri: str, target: Path) -> Path:
    # Only these commands need MLflow, whose import takes seconds.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    # The tracking_uri argument of download_artifacts does not reach the lookup of the version.
    mlflow.set_tracking_uri(tracking_uri)
    try:
        return Path(download_artifacts(artifact_uri=reference.uri, dst_path=str(target)))
    except MlflowException as error:
        if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            problem = f"the registry at {tracking_uri} has no {reference}"
        else:
            problem = f"cannot fetch {reference} from {tracking_uri}"
        raise CliError(f"{problem}: {_first_line(error.message)}") from error
    except OSError as error:  # a broken connection, too, is one of requests'
        raise CliError(
            f"cannot fetch {reference} from {tracking_uri}: {_first_line(str(error))}"
        ) from error


def _first_line(text: str) -> str:
    return text.partition("\n")[0][:300]


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "adapter_config.json"
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CliError(f"{folder} is no adapter: {path} cannot be read") from error
    if not isinstance(config, dict):
        raise CliError(f"{folder} is no adapter: {path} holds no fields")
    return config

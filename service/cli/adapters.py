"""Registered adapters: references to model versions, download, how to load them."""

import json
import re
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from service.cli.errors import CliError
from service.client import Client, ProblemError

_REFERENCE = re.compile(
    r"(?:models:/)?(?P<name>[^/:@]+)(?:@(?P<alias>[^/:@]+)|/(?P<version>[0-9]+))"
)

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")
_NOT_THERE = {"model-not-found", "model-version-not-found", "model-alias-not-found"}


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
    def version(self) -> str:
        """The number of the version, or @ and the alias, as the API takes it."""
        return self.selector.lstrip("/")

    @property
    def uri(self) -> str:
        """MLflow's URI of the version."""
        return f"models:/{self}"

    def __str__(self) -> str:
        return f"{self.name}{self.selector}"


def pull_adapter(reference: ModelReference, client: Client, folder: Path) -> None:
    """Download an adapter into a folder that does not exist yet or is empty.

    The folder appears only when everything is in it.

    Args:
        reference: The model version.
        client: Of the service that has it.
        folder: Where its files go.

    Raises:
        CliError: If the folder holds something or cannot be written, the service has no such
            adapter, or what it sends is none.
    """
    require_empty(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".hyplora-pull-", dir=folder.parent) as scratch:
            unpacked = Path(scratch) / "adapter"
            unpacked.mkdir()
            with tempfile.TemporaryFile(dir=scratch) as archive:
                _download(reference, client, archive)
                archive.seek(0)
                _unpack(archive, unpacked)
            unpacked.rename(folder)
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


def _download(reference: ModelReference, client: Client, archive: BinaryIO) -> None:
    try:
        client.models.download(reference.name, reference.version, archive)
    except ProblemError as error:
        if error.code in _NOT_THERE:
            raise CliError(f"{client.url} has no {reference}: {error}") from error
        raise


def _unpack(archive: BinaryIO, folder: Path) -> None:
    """Write the files of a tar; whatever it holds, nothing lands beside the folder."""
    try:
        with tarfile.open(fileobj=archive, mode="r:") as tar:
            for entry in tar:
                content = tar.extractfile(entry) if entry.isreg() else None
                if content is None or not _FILE_NAME.fullmatch(entry.name):
                    raise CliError(f"the service sent {entry.name!r}, which is no adapter's file")
                with (folder / entry.name).open("xb") as file:
                    shutil.copyfileobj(content, file)
    except tarfile.TarError as error:
        raise CliError(f"the service sent a damaged adapter: {error}; pull it again") from error
    if not (folder / "adapter_config.json").is_file():
        raise CliError("the service sent an adapter without adapter_config.json; pull it again")


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "adapter_config.json"
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CliError(f"{folder} is no adapter: {path} cannot be read") from error
    if not isinstance(config, dict):
        raise CliError(f"{folder} is no adapter: {path} holds no fields")
    return config

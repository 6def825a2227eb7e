"""Which weights an evaluation is about, decided once for all its attempts."""

import re
from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from pyarrow.fs import FileSystem, FileType

from jobs.evaluate_specs import EvaluateSpec
from jobs.model_specs import ModelSpec
from workers.document import Document
from workers.errors import AdapterUnusableError, BaseModelNotFoundError
from workers.mlflow_download import explaining_mlflow, pin

_FILE = "pins.json"


class VersionName(Document):
    """A version of a registered model."""

    model: str
    """Name of the registered model."""

    version: str
    """Its number."""


class Pins(Document):
    """What every reference of a spec named when the job first ran."""

    base_model: str
    """The base model; an MLflow alias is a version here."""

    models: dict[str, str | None]
    """The adapter of each model by the model's name, as `jobs.evaluation.asked.Asked` has it; the
    holder of the alias of `promote_if_better` is among them."""

    holder: str | None = None
    """Name of the model that held the alias; None without one."""


def decide_pins(spec: EvaluateSpec, folder: str, client: MlflowClient) -> Pins:
    """Resolve every alias, or find what an earlier attempt resolved.

    An alias may move while a job is paused, and half of its answers are there.

    Args:
        spec: The evaluation's.
        folder: Path or address of the evaluation's storage.
        client: Connected to the registry.

    Raises:
        BaseModelNotFoundError: If the base model's URI names nothing.
        AdapterUnusableError: If an adapter's URI names nothing.
    """
    filesystem, root = FileSystem.from_uri(folder)
    path = f"{root}/{_FILE}"
    if filesystem.get_file_info(path).type is FileType.File:
        with filesystem.open_input_stream(path) as file:
            return Pins.model_validate_json(file.read())
    pins = _resolve(spec, client)
    filesystem.create_dir(root)
    with filesystem.open_output_stream(f"{path}.new") as file:
        file.write(pins.model_dump_json().encode())
    filesystem.move(f"{path}.new", path)  # whole or not at all
    return pins


def version_in(reference: str | None) -> VersionName | None:
    """The version of a registered model that a pinned reference names; None for anything else."""
    found = re.fullmatch(r"models:/([^/]+)/(\d+)", reference or "")
    return VersionName(model=found[1], version=found[2]) if found else None


def holder_of(alias: str, model: str, client: MlflowClient) -> VersionName | None:
    """The version that an alias of a registered model points at; None if there is no such alias.

    Raises:
        AdapterUnusableError: If there is no such model, or MLflow does not answer.
    """
    with explaining_mlflow(f"registered model {model!r}", AdapterUnusableError):
        aliases: Mapping[str, str] = client.get_registered_model(model).aliases
    return VersionName(model=model, version=str(aliases[alias])) if alias in aliases else None


def registered_version(version: VersionName, client: MlflowClient) -> ModelVersion:
    """A version as the registry has it.

    Raises:
        AdapterUnusableError: If there is none, or MLflow does not answer.
    """
    what = f"version {version.version} of registered model {version.model!r}"
    with explaining_mlflow(what, AdapterUnusableError):
        return client.get_model_version(version.model, version.version)


def _resolve(spec: EvaluateSpec, client: MlflowClient) -> Pins:
    models = {model.name: _pinned(model) for model in spec.models}
    for reference in models.values():
        if version := version_in(reference):
            registered_version(version, client)
    pins = Pins(
        base_model=pin(spec.base_model, "base_model", BaseModelNotFoundError), models=models
    )
    if spec.promote_if_better is None:
        return pins
    candidate = version_in(models[spec.candidate.name])
    if candidate is None:
        raise AdapterUnusableError(
            f"promote_if_better: model {spec.candidate.name!r} is no version of a registered "
            "model; give models:/NAME/VERSION"
        )
    holder = holder_of(spec.promote_if_better.alias, candidate.model, client)
    if holder is None:
        return pins
    reference = f"models:/{holder.model}/{holder.version}"
    named = next((name for name, known in models.items() if known == reference), None)
    if named is None:
        named = _free_name(f"models:/{holder.model}@{spec.promote_if_better.alias}", models)
    return pins.model_copy(update={"models": models | {named: reference}, "holder": named})


def _pinned(model: ModelSpec) -> str | None:
    if model.adapter is None:
        return None
    return pin(model.adapter, f"model {model.name!r}: adapter", AdapterUnusableError)


def _free_name(reference: str, taken: Mapping[str, object]) -> str:
    name = ModelSpec(adapter=reference).name
    while name in taken:
        name += "-holder"
    return name

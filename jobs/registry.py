"""The adapter as a registered MLflow model: a small flavor of its own, and pyfunc.

The adapter's files lie at the root of the artifact, so that `PeftModel.from_pretrained` reads a
download as it is. The code folders of the adapter library and the workers travel with it, so that
`mlflow.pyfunc.load_model` answers in a process where this project is not installed.
"""

import importlib.metadata
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import mlflow
import mlflow.pyfunc
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import ColSpec, Schema

import hyplora
import workers

FLAVOR_NAME = "hyplora"
_LOADER_MODULE = "workers.pyfunc_model"
_RUNTIME_PACKAGES = ("torch", "transformers", "peft", "safetensors", "pydantic")


def register_adapter(
    client: MlflowClient,
    run_id: str,
    adapter_dir: Path,
    model_name: str,
    lineage: Mapping[str, str],
    alias: str | None,
) -> ModelVersion:
    """Log an adapter folder to a run and register it; a repeated call finds the first version.

    Args:
        client: Connected to the tracking server that holds the run.
        run_id: The run that made the adapter.
        adapter_dir: A folder that PEFT's `save_pretrained` wrote.
        model_name: Registered model that gets the version.
        lineage: Tags of the version: digests, base model, job, scores.
        alias: Alias to point at the version, or None.

    Returns:
        The registered version.
    """
    version = _version_of_run(client, run_id, model_name)
    if version is None:
        # The fluent API, which Model.log uses inside, knows no client argument.
        mlflow.set_tracking_uri(client.tracking_uri)
        Model.log(
            artifact_path=None,
            name=model_name,
            flavor=sys.modules[__name__],
            run_id=run_id,
            registered_model_name=model_name,
            tags=dict(lineage),
            adapter_dir=adapter_dir,
        )
        version = _version_of_run(client, run_id, model_name)
        assert version is not None, "MLflow registered no version and raised nothing"
    if alias is not None:
        client.set_registered_model_alias(model_name, alias, version.version)
    return version


def save_model(path: str, mlflow_model: Model, adapter_dir: Path) -> None:
    """Write the adapter as an MLflow model folder; called by `Model.log`.

    Args:
        path: Folder to write, which does not exist yet.
        mlflow_model: The description to complete and save beside the files.
        adapter_dir: A folder that PEFT's `save_pretrained` wrote.
    """
    root = Path(path)
    shutil.copytree(adapter_dir, root)
    for package in (hyplora, workers):
        source = Path(str(package.__file__)).parent
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, root / "code" / source.name, ignore=ignored)
    requirements = [f"{name}=={_version_of(name)}" for name in _RUNTIME_PACKAGES]
    (root / "requirements.txt").write_text("\n".join(requirements) + "\n")
    (root / "python_env.yaml").write_text(
        f"python: {sys.version.split()[0]}\ndependencies:\n- -r requirements.txt\n"
    )
    mlflow_model.add_flavor(FLAVOR_NAME, hyplora_version=_version_of("hyplora"), data=".")
    mlflow.pyfunc.add_to_model(
        mlflow_model, loader_module=_LOADER_MODULE, code="code", python_env="python_env.yaml"
    )
    text = Schema([ColSpec("string")])
    mlflow_model.signature = ModelSignature(inputs=text, outputs=text)
    mlflow_model.save(str(root / "MLmodel"))


def _version_of_run(client: MlflowClient, run_id: str, model_name: str) -> ModelVersion | None:
    found = client.search_model_versions(f"name = '{model_name}'")
    return next((version for version in found if version.run_id == run_id), None)


def _version_of(package: str) -> str:
    """Installed version without a local label, which no registry serves (2.13.0+cpu)."""
    return importlib.metadata.version(package).split("+")[0]

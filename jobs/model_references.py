"""The registered models that a job reads and writes, as its spec names them. Torch-free."""

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from jobs.evaluate_specs import EvaluateSpec
from jobs.finetune_specs import TuningSpec
from jobs.specs import JobSpec, adapters

_SCHEME = "models:/"
_REFERENCE = re.compile(
    # MLflow reads addresses more loosely; what it could read otherwise is refused here.
    r"models:/(?P<name>[A-Za-z0-9][A-Za-z0-9 ._+-]{0,255})"
    r"(?:@(?P<alias>[A-Za-z0-9_-]{1,255})"
    r"|/(?:(?P<version>[0-9]{1,9})|[A-Za-z]+)(?:/(?!\.)[A-Za-z0-9 ._+-]+)*)"
)
_LOGGED_MODEL = re.compile(r"models:/m-[0-9a-f]{32}")


@dataclass(frozen=True)
class VersionReference:
    """A version of a registered model, by its number or by where something points."""

    name: str
    """The registered model."""

    version: int | None = None
    """Its number."""

    alias: str | None = None
    """The alias that points at it; with neither, it is the newest, or the newest of a stage."""

    @classmethod
    def parse(cls, uri: str) -> Self | None:
        """Read an MLflow URI; None for what names no registered model.

        Raises:
            ValueError: If it is a URI of a registered model, but of an unknown form.
        """
        if not uri.startswith(_SCHEME) or _LOGGED_MODEL.fullmatch(uri):
            return None
        match = _REFERENCE.fullmatch(uri)
        if match is None:
            raise ValueError("give models:/NAME@ALIAS, models:/NAME/VERSION or models:/NAME/latest")
        version = match["version"]
        return cls(match["name"], int(version) if version else None, match["alias"])


def model_uris(spec: JobSpec) -> dict[str, str]:
    """Everything that a spec names as a model, by field: ids, folders and MLflow URIs."""
    return {"base_model": spec.base_model} | adapters(spec)


def written_models(spec: JobSpec) -> dict[str, str]:
    """Names of the registered models that a job adds versions to or moves aliases of, by field.

    A reference that cannot be read is left out; who reads `model_uris` has refused it.
    """
    if isinstance(spec, TuningSpec):
        field = "registry.model_name" if spec.registry.model_name else "name"
        return {field: spec.registered_model_name}
    if isinstance(spec, EvaluateSpec) and spec.promote_if_better is not None:
        with suppress(ValueError):
            if candidate := VersionReference.parse(spec.candidate.adapter or ""):
                return {"promote_if_better": candidate.name}
    return {}

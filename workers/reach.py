"""What jobs may read: which base models, which folders, which places of data.

An operator decides it. The control plane holds every spec to it, and the workers hold to it what
they are about to open: only they see where a symbolic link leads. Torch-free.
"""

import os
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from pydantic import Field

from workers.specs import HubDatasetSpec, Spec

REACH_VARIABLE = "HYPLORA_REACH"
"""Environment variable in which the processes of a job find their reach as JSON."""

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)?")
_MLFLOW_URI = re.compile(r"(?:models|runs):/[^/\\%?#\x00-\x1f\x7f][^\\%?#\x00-\x1f\x7f]*")
_FOLDERS_SETTING = "HYPLORA_ALLOWED_FOLDERS"


class Reach(Spec):
    """What the jobs of one service may read; each refusal is a sentence for the user."""

    base_models: tuple[str, ...] = ("*",)
    """Hugging Face ids and MLflow URIs of base models, with * and ? for what may differ."""

    folders: tuple[str, ...] = ()
    """Absolute folders; base models, adapters and file:// sources may lie anywhere below them."""

    closed_folders: tuple[str, ...] = ()
    """Folders that stay closed inside those; of nested ones, the innermost decides."""

    sources: tuple[str, ...] = Field(("hub://*",))
    """Prefixes of URLs such as s3://bucket/folder, and hub data sets such as hub://openai/*."""

    def refusal_of_base_model(self, reference: str) -> str | None:
        """Why a base model may not be used; None if it may."""
        if not (_is_mlflow_uri(reference) or _HUB_ID.fullmatch(reference)):
            return self.refusal_of_path(reference)
        if any(fnmatchcase(reference, pattern) for pattern in self.base_models):
            return None
        return (
            f"{reference!r} is none of the base models that jobs may use; choose one of those "
            "(HYPLORA_ALLOWED_BASE_MODELS)"
        )

    def refusal_of_adapter(self, reference: str) -> str | None:
        """Why an adapter may not be used; None if it may. Those in MLflow always may."""
        return None if _is_mlflow_uri(reference) else self.refusal_of_path(reference)

    def refusal_of_source(self, source: str | HubDatasetSpec) -> str | None:
        """Why rows may not be read from a URL or a data set of the hub; None if they may."""
        if isinstance(source, HubDatasetSpec):
            if any(fnmatchcase(f"hub://{source.dataset}", allowed) for allowed in self.sources):
                return None
            return (
                f"{source.dataset!r} is none of the hub's data sets that jobs may read; choose one "
                "of those (HYPLORA_ALLOWED_SOURCES), or upload the rows"
            )
        if source.startswith("file://"):
            return self.refusal_of_path(source.removeprefix("file://"))
        if any(_is_below(source, allowed) for allowed in self.sources):
            return None
        return (
            f"{source!r} is in none of the places that jobs may read "
            "(HYPLORA_ALLOWED_SOURCES); upload the rows, or ask the operator to allow its bucket"
        )

    def refusal_of_path(self, path: str) -> str | None:
        """Why a path may not be read; None if it may.

        Symbolic links and `..` are followed as this machine sees them.
        """
        if not path.startswith("/"):
            return f"{path!r} is no absolute path; give one that every worker sees"
        try:
            real = os.path.realpath(path)
            depth = _innermost(real, self.folders)
            is_allowed = depth > _innermost(real, self.closed_folders)
        except ValueError:  # a character that no path can have
            return f"{path!r} cannot be a path"
        if is_allowed and not any(part.startswith(".") for part in _parts(real)[depth:]):
            return None
        return (
            f"{path!r} is outside the folders that jobs may read, or hidden in one of them; ask "
            f"the operator to allow its folder ({_FOLDERS_SETTING})"
        )


def confine(reach: Reach) -> None:
    """Hold this process, and those that inherit its environment, to a reach."""
    os.environ[REACH_VARIABLE] = reach.model_dump_json()


def reach_of_this_process() -> Reach | None:
    """What the job may read that this process works for; None outside of jobs, for anything."""
    document = os.environ.get(REACH_VARIABLE)
    return None if document is None else Reach.model_validate_json(document)


def _is_mlflow_uri(reference: str) -> bool:
    parts = reference.partition(":/")[2].split("/")
    return bool(_MLFLOW_URI.fullmatch(reference)) and not {"", ".", ".."} & set(parts)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def _innermost(path: str, folders: Sequence[str]) -> int:
    """How many folders deep the innermost of `folders` is that holds the path; -1 if none does."""
    parts = _parts(path)
    candidates = [_parts(os.path.realpath(folder)) for folder in folders]
    return max((len(each) for each in candidates if parts[: len(each)] == each), default=-1)


def _is_below(url: str, allowed: str) -> bool:
    """Whether a URL is an allowed one or lies below it; a bucket's name may hold * and ?."""
    scheme, _, path = url.partition("://")
    allowed_scheme, _, allowed_path = allowed.partition("://")
    parts, wanted = _parts(path), _parts(allowed_path)
    return (
        scheme == allowed_scheme
        and len(parts) >= len(wanted)
        and all(fnmatchcase(part, pattern) for part, pattern in zip(parts, wanted, strict=False))
    )

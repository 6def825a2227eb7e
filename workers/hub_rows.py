"""Reading a data set of the Hugging Face hub: its own files, and no others.

The description of a data set says where its files are. The library follows it to any address and
into the folders of this machine, and the author of a public data set is nobody one knows.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.errors import DataInvalidError, ReferenceNotAllowedError
from workers.reach import reach_of_this_process

if TYPE_CHECKING:
    from datasets import DatasetBuilder

    from workers.specs import HubDatasetSpec

_DESCRIPTIONS = ("README.md", ".huggingface.yaml")


def iter_hub_rows(source: HubDatasetSpec, name: str) -> Iterator[dict[str, Any]]:
    """Download a data set and yield its rows.

    Args:
        source: Which one.
        name: The field of the spec that names it, for messages.

    Raises:
        DataInvalidError: If the hub does not have it, or it holds no rows.
        ReferenceNotAllowedError: If jobs may not read it, or it names files that are not its own.
    """
    import datasets
    import yaml
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        builder = _builder(source, name)
        builder.download_and_prepare()
        return iter(builder.as_dataset(split=source.split))
    except (
        OSError,
        ValueError,
        HfHubHTTPError,
        HFValidationError,
        yaml.YAMLError,
        datasets.exceptions.DatasetsError,
    ) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataInvalidError(
            f"{name}: data set {source.dataset!r} cannot be read from the Hugging Face hub: "
            f"{reason}; check its id, config and split, and HF_TOKEN if it is private"
        ) from error


def _builder(source: HubDatasetSpec, name: str) -> DatasetBuilder:
    """A reader of the data set that was found to read nothing else."""
    import datasets

    folder = Path(source.dataset)
    _require_within_reach(source, name, is_folder=folder.exists())
    revision = source.revision
    if not folder.exists():
        revision = _require_own_description(source, name)
    builder = datasets.load_dataset_builder(source.dataset, source.config, revision=revision)
    own = f"{folder}/" if folder.exists() else f"hf://datasets/{source.dataset}@"
    files = [str(file) for each in (builder.config.data_files or {}).values() for file in each]
    _require_own(source, name, (file for file in files if not file.startswith(own)))
    return builder


def _require_within_reach(source: HubDatasetSpec, name: str, is_folder: bool) -> None:
    reach = reach_of_this_process()
    if reach is None:
        return
    refusal = reach.refusal_of_source(source)
    if is_folder:
        refusal = f"{source.dataset!r} is a folder on a worker, and no data set of the hub"
    if refusal is not None:
        raise ReferenceNotAllowedError(f"{name}: {refusal}")


def _require_own_description(source: HubDatasetSpec, name: str) -> str | None:
    """Refuse a data set that names files elsewhere, before the library looks whether they exist.

    Returns:
        The commit that was looked at; None if the hub is out of reach, when there is only what was
        downloaded before.
    """
    from huggingface_hub import DatasetCard, HfApi, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, OfflineModeIsEnabled

    try:
        commit = HfApi().dataset_info(source.dataset, revision=source.revision).sha
    except (ConnectionError, OfflineModeIsEnabled):
        return source.revision
    for file in _DESCRIPTIONS:
        try:
            path = hf_hub_download(source.dataset, file, repo_type="dataset", revision=commit)
        except EntryNotFoundError:
            continue
        text = Path(path).read_text(encoding="utf-8")
        card = DatasetCard(text if text.startswith("---") else f"---\n{text}\n---\n")
        described = card.data.to_dict().get("configs")
        _require_own(source, name, (path for path in _paths(described) if _leaves(path)))
    return commit


def _paths(described: object) -> Iterator[str]:
    """Every text in a description of files, whatever its form: any may be taken for a path."""
    if isinstance(described, str):
        yield described
    elif isinstance(described, dict):
        for value in described.values():
            yield from _paths(value)
    elif isinstance(described, list):
        for value in described:
            yield from _paths(value)


def _leaves(path: str) -> bool:
    """Whether a path is an address, or leads out of the folder that it is relative to."""
    return ":" in path or path.startswith(("/", "~")) or posixpath.normpath(path).startswith("..")


def _require_own(source: HubDatasetSpec, name: str, foreign: Iterable[str]) -> None:
    for path in foreign:
        raise ReferenceNotAllowedError(
            f"{name}: data set {source.dataset!r} names {path!r}, which is no file of its own; "
            "download it, and upload its rows"
        )

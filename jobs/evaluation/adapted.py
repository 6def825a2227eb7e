"""Many adapters over one base model, those of each PEFT method in their turn."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hyplora.tuner.layer import BASE_ROW
from workers.adapter import load_adapters, method_of

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def by_method(folders: Mapping[str, Path | None]) -> list[dict[str, Path | None]]:
    """Split models into groups that a base model can carry at the same time.

    The base model itself goes with the first group: there its rows may share passes.

    Args:
        folders: Of each model's adapter, by its name; None for the base model as it is.

    Raises:
        AdapterUnusableError: If a folder holds no adapter.
    """
    groups: dict[str, dict[str, Path | None]] = {}
    for name, folder in folders.items():
        if folder is not None:
            groups.setdefault(method_of(folder), {})[name] = folder
    bare: dict[str, Path | None] = {n: None for n, folder in folders.items() if folder is None}
    first, *others = groups.values() or [{}]
    return [bare | first, *others]


@contextmanager
def adapted(
    model: "PreTrainedModel", folders: Mapping[str, Path | None]
) -> "Iterator[tuple[PreTrainedModel | PeftModel, dict[str, str]]]":
    """Put adapters of one method on a base model for as long as the context lasts.

    Args:
        model: The base model, changed in place and given back as it was.
        folders: One of the groups that `by_method` makes.

    Yields:
        The model, and by each model's name that of its adapter there. The two differ, since what
        users call their models may be what PEFT calls its weights.

    Raises:
        AdapterUnusableError: If a folder holds no whole adapter for this base model.
    """
    saved = {f"asked-{number}": folder for number, folder in enumerate(folders.values())}
    names = {
        name: BASE_ROW if folder is None else f"asked-{number}"
        for number, (name, folder) in enumerate(folders.items())
    }
    loaded = {name: folder for name, folder in saved.items() if folder is not None}
    if not loaded:
        yield model, names
        return
    together = load_adapters(model, loaded)
    try:
        yield together.to(model.device), names
    finally:
        together.unload()

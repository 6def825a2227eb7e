"""Batches in which each row has its own adapter: PEFT's `adapter_names` argument at inference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from peft.utils import AuxiliaryTrainingWrapper
from torch import nn

from hyplora.errors import AdapterNamesError
from hyplora.tuner.layer import BASE_ROW, HypLoraLinear


@contextmanager
def adapter_names_by_row(
    model: nn.Module, adapter_names: Sequence[str], num_beams: int
) -> Iterator[None]:
    """Hand `adapter_names` to every adapted layer for as long as the context lasts.

    Args:
        model: A model with HypLoRA layers.
        adapter_names: One adapter name a batch row; "__base__" for none.
        num_beams: Beams of the generation, each of which the decoder sees as a row.

    Raises:
        AdapterNamesError: If the model is training, or if it has no adapter of one of the names.
    """
    if model.training:
        raise AdapterNamesError("adapter_names works at inference only: call model.eval() first")
    _require_known(model, adapter_names)
    beam_names = [name for name in adapter_names for _ in range(num_beams)]
    encoder_modules = set(_encoder_modules(model))
    with ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, (HypLoraLinear, AuxiliaryTrainingWrapper)):
                # The encoder runs before the rows are repeated for the beams.
                names = adapter_names if module in encoder_modules else beam_names
                hook = partial(_add_adapter_names, names=names)
                hooks.enter_context(module.register_forward_pre_hook(hook, with_kwargs=True))
        yield


def _add_adapter_names(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, names: Sequence[str]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, {**kwargs, "adapter_names": names}


def _require_known(model: nn.Module, adapter_names: Sequence[str]) -> None:
    known = {
        name
        for module in model.modules()
        if isinstance(module, HypLoraLinear)
        for name in module.hyplora_A
    }
    unknown = set(adapter_names) - known - {BASE_ROW}
    if unknown:
        raise AdapterNamesError(
            f"adapter_names has {', '.join(sorted(unknown))}, but the model's adapters are "
            f"{', '.join(sorted(known))}: load the adapter first, or correct its name"
        )


def _encoder_modules(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules of an encoder-decoder model's encoder."""
    # transformers answers get_encoder() with the model itself where there is no encoder.
    get_encoder = getattr(model, "get_encoder", None)
    if callable(get_encoder) and (encoder := get_encoder()) is not model:
        yield from encoder.modules()

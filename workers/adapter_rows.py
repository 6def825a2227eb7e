"""Forward passes in which each row has its own adapter, or all have one, or none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from peft import PeftModel

from hyplora.tuner.layer import BASE_ROW
from workers.errors import AdapterUnusableError

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.modeling_outputs import CausalLMOutputWithPast


class AdapterRows:
    """A model whose rows name their adapters; made by `adapter_rows`.

    Args:
        model: In evaluation mode, with an adapter or without.
    """

    def __init__(self, model: PreTrainedModel | PeftModel) -> None:
        self.model = model
        self._adapted = model if isinstance(model, PeftModel) else None
        self._active: str | None = None

    @property
    def can_mix(self) -> bool:
        """Whether rows of one pass may have different adapters; PEFT's DoRA refuses that."""
        if self._adapted is None:
            return False
        configs = self._adapted.peft_config.values()
        return not any(getattr(config, "use_dora", False) for config in configs)

    def __call__(self, names: Sequence[str | None], **inputs: object) -> CausalLMOutputWithPast:
        """Run a forward pass.

        Args:
            names: The adapter of each row; "__base__" for none; None, of all rows alike, for what
                is active in the model.
            inputs: What the model takes.
        """
        different = set(names)
        if different == {None}:
            return self.model(**inputs)
        if len(different) > 1:
            self.activate(None)
            return self.model(**inputs, adapter_names=list(names))
        self.activate(names[0])
        return self.model(**inputs)

    def check(self, names: Sequence[str | None]) -> None:
        """Raise AdapterUnusableError if the model has no adapter of one of the names."""
        known = {BASE_ROW, None, *(self._adapted.peft_config if self._adapted else ())}
        if unknown := sorted({str(name) for name in names if name not in known}):
            raise AdapterUnusableError(
                f"the model has no adapter {', '.join(unknown)}; it has "
                f"{', '.join(sorted(str(name) for name in known - {None}))}: load it first, or "
                "correct its name"
            )

    def activate(self, name: str | None) -> None:
        """Let every row have one adapter, which costs nothing at each pass; None for no choice."""
        if self._adapted is None or name == self._active:
            return
        tuner = self._adapted.base_model
        if self._active == BASE_ROW:
            tuner.enable_adapter_layers()
        if name == BASE_ROW:
            tuner.disable_adapter_layers()
        elif name is not None:
            tuner.set_adapter(name, inference_mode=True)
        self._active = name


@contextmanager
def adapter_rows(model: PreTrainedModel | PeftModel) -> Iterator[AdapterRows]:
    """Let rows name their adapters for as long as the context lasts."""
    rows = AdapterRows(model)
    if not isinstance(model, PeftModel):
        yield rows
        return
    before = list(model.active_adapters)
    trained = {name for name, each in model.named_parameters() if each.requires_grad}
    try:
        yield rows
    finally:
        rows.activate(None)
        model.base_model.set_adapter(before, inference_mode=True)
        for name, each in model.named_parameters():
            each.requires_grad_(name in trained)

"""Putting an adapter on a base model: a new one from its spec, or a saved one."""

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from peft import (
    LoraConfig,
    PeftConfig,
    PeftModel,
    TaskType,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from hyplora import HypLoraConfig
from workers.errors import AdapterUnusableError, TargetModulesNotFoundError
from workers.specs import AdapterSpec, HypLoraSpec

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor

# PEFT 0.21 asks models by the old name of this property, at every adapter that it adds.
warnings.filterwarnings(
    "ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning
)

WEIGHTS_NAME = "adapter_model.safetensors"
ALL_LINEAR = "all-linear"
_SAVED = "saved"


def build_adapter(model: PreTrainedModel, spec: AdapterSpec) -> PeftModel:
    """Add a new, trainable adapter in float32; the base model is changed in place.

    Draws the initial weights from torch's global generator.

    Raises:
        TargetModulesNotFoundError: If a target module matches nothing that can be adapted.
    """
    _check_targets(model, spec.target_modules)
    try:
        adapted = get_peft_model(model, _config(spec))
    except (ValueError, TypeError) as error:
        raise TargetModulesNotFoundError(
            f"adapter.target_modules {_shown(spec.target_modules)} cannot be adapted: {error}"
        ) from error
    _check_patterns(adapted, spec)
    return adapted


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Add a saved adapter, frozen and complete; the base model is changed in place.

    Raises:
        AdapterUnusableError: If the folder holds no whole adapter for this base model.
    """
    return load_adapters(model, {"default": folder})


def load_adapters(model: PreTrainedModel, folders: Mapping[str, Path]) -> PeftModel:
    """Add saved adapters of one PEFT method, each frozen and complete; the first is active.

    The base model is changed in place; `unload` of what is returned gives it back.

    Args:
        model: The base model.
        folders: At least one adapter, by the name that it gets.

    Raises:
        AdapterUnusableError: If a folder holds no whole adapter for this base model.
    """
    adapted: PeftModel | None = None
    for name, folder in folders.items():
        config = _saved_config(folder)
        config.base_model_name_or_path = model.name_or_path
        try:
            if adapted is None:
                adapted = get_peft_model(model, config, adapter_name=name)
            else:
                adapted.add_adapter(name, config)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise AdapterUnusableError(
                f"the adapter in {folder} does not fit base model {model.name_or_path!r}: {error}"
            ) from error
        restore_weights(adapted, folder, name)
    assert adapted is not None, "no adapter is named"
    return adapted.eval()


def base_model_of(folder: Path) -> str:
    """The base model that a saved adapter was trained on, as its user named it.

    Raises:
        AdapterUnusableError: If the folder holds no adapter.
    """
    return _saved_config(folder).base_model_name_or_path


def method_of(folder: Path) -> str:
    """The PEFT method of a saved adapter, such as "LORA"; a base model takes one at a time.

    Raises:
        AdapterUnusableError: If the folder holds no adapter.
    """
    return str(_saved_config(folder).peft_type)


def _saved_config(folder: Path) -> PeftConfig:
    if not (folder / "adapter_config.json").is_file():
        raise AdapterUnusableError(
            f"{folder} holds no adapter_config.json; give a folder that an adapter was saved in"
        )
    try:
        return PeftConfig.from_pretrained(str(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdapterUnusableError(
            f"adapter_config.json in {folder} cannot be read: {error}"
        ) from error


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Write adapter_config.json and the weights as safetensors."""
    # The embeddings are frozen, so "auto" would only make PEFT look for their original on the hub.
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's model card is an empty form


@torch.no_grad()
def verify_saved(model: PeftModel, folder: Path, input_ids: "Int[Tensor, '1 time']") -> None:
    """Load a just saved adapter beside the one in memory and hold its answers to that one's.

    Args:
        model: The model that was saved; left as it was, in evaluation mode.
        folder: Where `save_adapter` wrote.
        input_ids: A prompt to answer, on the model's device.

    Raises:
        AdapterUnusableError: If the saved adapter does not load, or answers differently.
    """
    model.eval()
    trained = model(input_ids=input_ids, use_cache=False).logits
    (active,) = model.active_adapters
    try:
        model.load_adapter(str(folder), _SAVED)
        model.set_adapter(_SAVED)
        saved = model(input_ids=input_ids, use_cache=False).logits
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise AdapterUnusableError(
            f"the adapter saved after training does not load: {error}; check the disk"
        ) from error
    finally:
        model.set_adapter(active)
        if _SAVED in model.peft_config:
            model.delete_adapter(_SAVED)
    if not trained.isfinite().all():
        raise AdapterUnusableError(
            "the trained adapter answers with numbers that are not finite; "
            "try a smaller training.learning_rate or training.dtype float32"
        )
    if not torch.equal(saved, trained):
        raise AdapterUnusableError(
            "the adapter saved after training answers differently from the trained one; "
            "check the disk, and that nothing else writes to its folder"
        )


def restore_weights(model: PeftModel, folder: Path, name: str = "default") -> None:
    """Load the weights that `save_adapter` wrote into an adapter, all of them and no others.

    Raises:
        AdapterUnusableError: If they are missing, damaged or of other modules or shapes.
    """
    path = folder / WEIGHTS_NAME
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise AdapterUnusableError(f"{path} cannot be read: {error}; save it again") from error
    expected = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    saved_shapes = {key: tuple(each.shape) for key, each in weights.items()}
    shapes = {key: tuple(each.shape) for key, each in expected.items()}
    if different := sorted(set(saved_shapes.items()) ^ set(shapes.items())):
        tensor = different[0][0]
        raise AdapterUnusableError(
            f"the adapter in {folder} does not fit this model: {tensor} is "
            f"{saved_shapes.get(tensor)} in the file and {shapes.get(tensor)} here; check base "
            "model, rank and target modules"
        )
    set_peft_model_state_dict(model, weights, adapter_name=name)


def _config(spec: AdapterSpec) -> PeftConfig:
    if isinstance(spec, HypLoraSpec):
        settings = spec.model_dump(mode="json", exclude={"method"})
        return HypLoraConfig(task_type=TaskType.CAUSAL_LM, **settings)
    settings = spec.model_dump(mode="json", exclude={"method", "alpha", "dropout", "init_weights"})
    return LoraConfig(
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        init_lora_weights=spec.init_weights,
        task_type=TaskType.CAUSAL_LM,
        **settings,
    )


def _check_targets(model: nn.Module, targets: Sequence[str] | str) -> None:
    """Every suffix must match some module; PEFT asks only that any of them does."""
    names = [name for name, _ in model.named_modules()]
    if isinstance(targets, str):
        unmatched = [] if _pattern_matches(targets, names) else [targets]
    else:
        unmatched = [
            suffix
            for suffix in targets
            if not any(name == suffix or name.endswith(f".{suffix}") for name in names)
        ]
    if unmatched:
        raise TargetModulesNotFoundError(
            f"adapter.target_modules {_shown(unmatched)} match nothing in this base model; its "
            f"linear layers are named {', '.join(_linear_names(model))}"
        )


def _check_patterns(adapted: PeftModel, spec: AdapterSpec) -> None:
    """Every entry must speak of some adapted layer; PEFT's LoRA ignores those that do not."""
    names = [name for name, m in adapted.named_modules() if isinstance(m, BaseTunerLayer)]
    for field in ("rank_pattern", "alpha_pattern"):
        for key in getattr(spec, field):
            if not any(get_pattern_key([key], name) == key for name in names):
                raise TargetModulesNotFoundError(
                    f"adapter.{field} has {key!r}, which matches none of the adapted layers; they "
                    f"are named like {names[0]}"
                )


def _pattern_matches(pattern: str, names: Sequence[str]) -> bool:
    if pattern.lower() == ALL_LINEAR:
        return True
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise TargetModulesNotFoundError(
            f"adapter.target_modules {pattern!r} is no regular expression: {error}; "
            "give a list of name suffixes"
        ) from error
    return any(compiled.fullmatch(name) for name in names)


def _linear_names(model: nn.Module) -> list[str]:
    return sorted(
        {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if isinstance(module, (nn.Linear, Conv1D))
        }
    )


def _shown(targets: Sequence[str] | str) -> str:
    return repr(targets) if isinstance(targets, str) else ", ".join(map(repr, targets))

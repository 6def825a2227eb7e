"""The model that a training optimises: base model, adapter, and how both are held in memory."""

from dataclasses import dataclass

import torch
from peft import PeftModel
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import PreTrainedModel

from workers.adapter import build_adapter
from workers.base_model import load_base_model
from workers.packing import use_packed_attention
from workers.ranks import world_size
from workers.seeds import derive_seed
from workers.specs import AdapterSpec, TrainingSpec

SETTINGS_OF_BASE = {
    "dtype",
    "quantization",
    "gradient_checkpointing",
    "compile",
    "shard_base_model",
}
"""Fields of `TrainingSpec` that a loaded base model depends on."""


@dataclass(frozen=True)
class Base:
    """A frozen base model without an adapter, ready to be given one."""

    model: PreTrainedModel

    can_pack: bool
    """Whether rows may be packed into one sequence."""

    attention: str
    """Name of the attention that it came with: unlike that of packed rows, it knows a cache."""


def load_base(base_model: str, training: TrainingSpec, device: torch.device) -> Base:
    """Load a base model and set it up for training.

    Args:
        base_model: A folder, a Hugging Face id or an MLflow URI.
        training: Precision, memory and compilation settings: `SETTINGS_OF_BASE`.
        device: Where this rank computes.

    Raises:
        BaseModelNotFoundError: If the base model is not there.
        BaseModelUnusableError: If it cannot be loaded completely and safely.
    """
    # bitsandbytes packs weights on the device where they will be used.
    home = device if training.quantization else None
    model = load_base_model(base_model, training.dtype, training.quantization, home)
    _keep_differentiable(model)
    if not training.shard_base_model and home is None:
        model.to(device)
    attention = str(model.config._attn_implementation)
    can_pack = use_packed_attention(model)
    if training.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    if training.compile:
        model.compile(dynamic=True)  # lengths differ from batch to batch
    return Base(model, can_pack, attention)


def add_adapter(
    base: Base, adapter: AdapterSpec, training: TrainingSpec, device: torch.device
) -> PeftModel:
    """Put a new adapter on a base model, which is changed in place.

    Args:
        base: From `load_base` with the same settings; `unload` of what is returned gives it back.
        adapter: The adapter to add.
        training: Holds the seed of the adapter's weights.
        device: Where this rank computes.

    Raises:
        TargetModulesNotFoundError: If the adapter finds no place.
    """
    torch.manual_seed(derive_seed(training.seed, "initialisation"))
    model = build_adapter(base.model, adapter)
    if training.shard_base_model and world_size() > 1:
        _shard_base_model(model, base.model, device)
    else:
        model.to(device)
    return model


def _keep_differentiable(base: PreTrainedModel) -> None:
    """Keep bitsandbytes from laying 4-bit weights out anew for inference on a CPU.

    Its layers do so for good at the first forward pass in evaluation mode, and what is computed
    with that layout has no gradient.
    """
    for module in base.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _shard_base_model(model: PeftModel, base: PreTrainedModel, device: torch.device) -> None:
    """Spread the frozen weights over the ranks; the adapter stays whole on each.

    An adapter is small, and whole it is trained, saved and resumed as without sharding, by any
    number of ranks.
    """
    whole = {parameter for parameter in model.parameters() if parameter.requires_grad}
    mesh = init_device_mesh(device.type, (world_size(),))
    blocks = set(base._no_split_modules or ())
    for module in base.modules():
        if type(module).__name__ in blocks:
            # One block at a time, so that the device never holds the whole model.
            module.to(device)
            fully_shard(module, mesh=mesh, ignored_params=_within(module, whole))
    model.to(device)
    fully_shard(base, mesh=mesh, ignored_params=whole)


def _within(module: nn.Module, parameters: set[nn.Parameter]) -> set[nn.Parameter]:
    return parameters.intersection(module.parameters())

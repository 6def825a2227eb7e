"""How much memory a worker takes at the peak of a training step, foretold without the weights.

The peak is a sum of parts, each with its formula below; `b` is the size of a number of the base
model (2 bytes in bfloat16, 4 in float32):

    base model    parameters and buffers, frozen                 b each; quantized 1 or 0.56 bytes;
                                                                 divided by the ranks if sharded
    adapter       float32 weights and their gradients            4 + 4 bytes a parameter
    optimizer     AdamW's two moments in float32                 8 bytes a parameter
    activations   what autograd keeps of the largest forward     counted, plus one layer's gradients
                  pass for its backward pass (of each layer, its input alone with gradient
                  checkpointing), and what one layer computes again
    logits        answers x vocabulary: log-softmax and its      8 bytes, and b more where they are
                  gradient in float32                            cast, each
    framework     interpreter, torch, transformers, peft, Ray    a constant

The activations are counted, not modelled: the training's own forward pass runs over fake tensors,
which have shapes and no content, and whatever autograd saves is added up. So the count follows the
architecture, the adapter and the loss. Fake attention keeps the keys and values of grouped heads
expanded, which real kernels may not. A test holds the sum to the peak of a real step on a CPU; what
a GPU takes beyond its tensors has not been measured.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from workers.train_step import AnswerLoss

if TYPE_CHECKING:
    from peft import PeftModel

    from workers.batches import MicroBatch
    from workers.specs import TrainingSpec

logger = logging.getLogger(__name__)

Device = Literal["cpu", "gpu"]
"""Where a worker trains."""

_FLOAT32_BYTES = 4
_QUANTIZED_BYTES = {"8bit": 1.0, "4bit": 0.5 + 4 / 64}
"""A number and its share of the scales: in nf4, one float32 for each block of 64."""
_FRAMEWORK_BYTES: dict[Device, int] = {"cpu": 600 * 1024**2, "gpu": 1024**3}
"""On a CPU, the process before it loads a model; on a GPU, its CUDA context and the workspaces of
cuBLAS and cuDNN. The base model passes through the host's memory on its way to a GPU."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory of one worker at its peak, in bytes, on the device where it trains."""

    base_model: int
    adapter: int
    optimizer: int
    activations: int
    logits: int
    framework: int

    @property
    def total(self) -> int:
        """The peak."""
        parts = (self.base_model, self.adapter, self.optimizer)
        return sum(parts) + self.activations + self.logits + self.framework


def estimate_memory(
    model: PeftModel,
    batch: MicroBatch,
    training: TrainingSpec,
    num_workers: int,
    device: Device,
) -> MemoryEstimate | None:
    """Foretell a worker's peak.

    Args:
        model: The base model with its adapter, on the meta device, unquantized; with gradient
            checkpointing afterwards, if the training asks for it.
        batch: The largest forward pass of the training.
        training: How the base model is held.
        num_workers: Ranks, for a base model that is sharded over them.
        device: Where the worker trains.

    Returns:
        The parts; None where the forward pass depends on what the tensors hold.
    """
    text_config = model.get_base_model().config.get_text_config()
    num_layers = text_config.num_hidden_layers
    try:
        saved = _saved_for_backward(model, batch)
        # In the backward pass, one layer at a time has gradients, or is computed again.
        of_a_layer = _size_of(saved) // num_layers
        if training.gradient_checkpointing:
            model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
            saved = _saved_for_backward(model, batch)
            of_a_layer *= 2
    except RuntimeError:  # also what fake tensors raise where they would have to be read
        logger.warning("the memory of a step cannot be foretold", exc_info=True)
        return None
    vocab_size = text_config.vocab_size
    logits_saved = _size_of(tensor for tensor in saved if tensor.shape[-1:] == (vocab_size,))
    activations = _size_of(saved) - logits_saved
    number = model.get_base_model().dtype.itemsize
    copies = 2 * _FLOAT32_BYTES + (number if number < _FLOAT32_BYTES else 0)
    # The check of the trained adapter compares two sets of logits, at every position of a row.
    of_check = 2 * max(batch.row_lengths) * vocab_size * number
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    base_bytes = _base_model_bytes(model, training.quantization)
    return MemoryEstimate(
        base_model=base_bytes // (num_workers if training.shard_base_model else 1),
        adapter=2 * _FLOAT32_BYTES * trainable,
        optimizer=2 * _FLOAT32_BYTES * trainable,
        activations=activations + of_a_layer,
        logits=max(logits_saved * copies // _FLOAT32_BYTES, of_check),
        framework=_FRAMEWORK_BYTES[device],
    )


def _base_model_bytes(model: PeftModel, quantization: str | None) -> int:
    """Weights and buffers; bitsandbytes quantizes those of linear layers but the head's."""
    head = model.get_base_model().get_output_embeddings()
    quantized = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, nn.Linear) and module is not head
    }
    frozen = [p for p in model.parameters() if not p.requires_grad]
    whole = [p for p in frozen if quantization is None or id(p) not in quantized]
    packed = sum(p.numel() for p in frozen) - sum(p.numel() for p in whole)
    a_number = _QUANTIZED_BYTES[quantization] if quantization else 0.0
    return _size_of([*whole, *model.buffers()]) + int(packed * a_number)


def _saved_for_backward(model: PeftModel, batch: MicroBatch) -> list[Tensor]:
    """What autograd keeps of a forward pass, parameters and buffers aside, each storage once."""
    loss_module = AnswerLoss(model).train()
    real = [*loss_module.named_parameters(), *loss_module.named_buffers()]
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[_storage(tensor)] = tensor
        return tensor

    with FakeTensorMode(allow_non_fake_inputs=True) as mode:  # attention keeps its masks
        state = {
            name: torch.empty(
                like.shape, dtype=like.dtype, device="cpu", requires_grad=like.requires_grad
            )
            for name, like in real
        }
        inputs = replace(
            batch,
            input_ids=mode.from_tensor(batch.input_ids),
            position_ids=mode.from_tensor(batch.position_ids),
            answer_positions=mode.from_tensor(batch.answer_positions),
            labels=mode.from_tensor(batch.labels),
        )
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = torch.func.functional_call(loss_module, state, (inputs,))
    assert loss.requires_grad, "the adapter has parameters to train"
    for tensor in state.values():
        kept.pop(_storage(tensor), None)
    return list(kept.values())


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _size_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of the tensors' storages."""
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)

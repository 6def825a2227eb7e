"""One of two training ranks, run as `python -m tests.unit.hyplora.tuner.rank_main FOLDER`.

Writes FOLDER/rank-N.pt, a `RankOutcome` as a dictionary, with N from $RANK.
"""

import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from transformers import LlamaConfig, LlamaForCausalLM

from hyplora import HypLoraConfig


@dataclass
class RankOutcome:
    """What one rank saw."""

    ddp_gradients: dict[str, Tensor]
    """Of the adapter, after one backward pass."""
    fsdp_adapters: list[dict[str, Tensor]]
    """The whole adapter after each training step."""
    fsdp_logits: list[Tensor]
    """On the whole batch, in evaluation after each training step."""


def make_model() -> PeftModel:
    """Make the same tiny adapted Llama each time."""
    torch.manual_seed(0)
    base = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=61,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=0.2,
        )
    )
    config = HypLoraConfig(
        r=4, alpha=8.0, init_weights=False, learn_curvature=True, task_type="CAUSAL_LM"
    )
    return get_peft_model(base, config)


def make_batch() -> Tensor:
    """Make four rows of token ids, all of one length: the mean of two ranks' losses is theirs."""
    return torch.randint(3, 61, (4, 10), generator=torch.Generator().manual_seed(0))


def adapter_gradients(model: nn.Module, rows: Tensor) -> dict[str, Tensor]:
    """Return the gradients of one backward pass."""
    model.train()(input_ids=rows, labels=rows).loss.backward()
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    return {name: p.grad for name, p in inner.named_parameters() if p.grad is not None}


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """Make an optimizer that, unlike Adam, leaves a gradient's rounding a rounding."""
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5, momentum=0.9)


def train_a_step(model: nn.Module, rows: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Move the adapter once."""
    optimizer.zero_grad()
    model.train()(input_ids=rows, labels=rows).loss.backward()
    optimizer.step()


def logits(model: nn.Module, rows: Tensor) -> Tensor:
    """Evaluate the model."""
    with torch.no_grad():
        return model.eval()(input_ids=rows).logits


def whole_adapter(model: nn.Module) -> dict[str, Tensor]:
    """Gather the adapter from all ranks."""
    options = StateDictOptions(full_state_dict=True, ignore_frozen_params=True)
    return {name: t.clone() for name, t in get_model_state_dict(model, options=options).items()}


def main(folder: Path) -> None:
    """Train under DDP, then under FSDP2."""
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    # A file as the meeting point needs no free port.
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size
    )
    rows = make_batch()
    own_rows = rows.chunk(world_size)[rank]
    outcome = RankOutcome(
        ddp_gradients=adapter_gradients(DistributedDataParallel(make_model()), own_rows),
        fsdp_adapters=[],
        fsdp_logits=[],
    )
    sharded = make_model()
    for block in sharded.get_base_model().model.layers:
        fully_shard(block)
    fully_shard(sharded)
    optimizer = make_optimizer(sharded)
    for _ in range(2):
        train_a_step(sharded, own_rows, optimizer)
        outcome.fsdp_adapters.append(whole_adapter(sharded))
        outcome.fsdp_logits.append(logits(sharded, rows))
    torch.save(asdict(outcome), folder / f"rank-{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

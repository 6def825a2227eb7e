"""What the ranks of a training do together; all of it is a no-op for one rank alone."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from workers.errors import WorkerError

Item = TypeVar("Item")


def rank() -> int:
    """Number of this rank, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of ranks."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def failing_together() -> Iterator[None]:
    """Raise on every rank what any rank raises within, so that no other waits for it forever.

    A file may be missing on one machine alone. Only `WorkerError`s are shared: anything else ends
    the process, which the others notice.
    """
    own: WorkerError | None = None
    try:
        yield
    except WorkerError as error:
        own = error
    for raised in gathered(own):
        if raised is not None:
            raise raised


def gathered(own: Item) -> list[Item]:
    """What every rank gives, in the order of ranks."""
    everyones = [own] * world_size()
    if world_size() > 1:
        dist.all_gather_object(everyones, own)
    return everyones


def decided_by_first(*choices: bool) -> list[bool]:
    """What rank 0 decides, on every rank."""
    if world_size() == 1:
        return list(choices)
    decided: list[bool] = list(choices)
    dist.broadcast_object_list(decided, src=0)
    return decided


def synchronise(module: nn.Module, *, is_sharded: bool = False) -> nn.Module:
    """Start all ranks from rank 0's trainable parameters and average their gradients.

    Args:
        module: Whose trainable parameters are whole on every rank.
        is_sharded: Whether frozen ones are sharded, which DDP cannot wrap: see `sum_gradients`.
    """
    if world_size() == 1:
        return module
    for parameter in module.parameters():
        if parameter.requires_grad:
            dist.broadcast(parameter.data, src=0)
    if is_sharded:
        return module
    # Every rank has read the frozen base model itself, so DDP need not send it around.
    return DistributedDataParallel(
        module, broadcast_buffers=False, gradient_as_bucket_view=True, init_sync=False
    )


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add the gradients of all ranks, in one message."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, summed in zip(
        gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True
    ):
        gradient.copy_(summed.view_as(gradient))

"""What the ranks of a training do together; all of it is a no-op for one rank alone."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from workers.errors import WorkerError


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
    everyones = [own]
    if world_size() > 1:
        everyones = [None] * world_size()
        dist.all_gather_object(everyones, own)
    for raised in everyones:
        if raised is not None:
            raise raised


def synchronise(module: nn.Module) -> nn.Module:
    """Start all ranks from rank 0's trainable parameters and average their gradients."""
    if world_size() == 1:
        return module
    for parameter in module.parameters():
        if parameter.requires_grad:
            dist.broadcast(parameter.data, src=0)
    # Every rank has read the frozen base model itself, so DDP need not send it around.
    return DistributedDataParallel(
        module, broadcast_buffers=False, gradient_as_bucket_view=True, init_sync=False
    )

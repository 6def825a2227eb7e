"""Waiting for nodes that are large enough: an autoscaled cluster starts them when asked."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ray.util.placement_group import placement_group, remove_placement_group

from jobs.errors import ResourcesUnavailableError
from jobs.placement import Node, judge_placement, live_nodes
from workers.specs import ResourcesSpec

logger = logging.getLogger(__name__)

_LOOK_INTERVAL_S = 1.0


def await_nodes(
    resources: ResourcesSpec,
    deadline_s: float,
    nodes: Callable[[], Sequence[Node]] = live_nodes,
    look_interval_s: float = _LOOK_INTERVAL_S,
) -> None:
    """Return once the cluster's nodes could hold the workers, if nothing else ran on them.

    Args:
        resources: What the job asks for.
        deadline_s: Longest wait (seconds). With 0 nothing is looked at: whoever places the workers
            says at once what is missing.
        nodes: Tells Ray's totals of each node.
        look_interval_s: Time between two looks (seconds).

    Raises:
        ResourcesUnavailableError: If they cannot by then; it says what is missing.
    """
    if not deadline_s or (placement := judge_placement(resources, nodes())).possible:
        return
    logger.info("waiting up to %g s for nodes: %s", deadline_s, placement.reason)
    give_up_at = time.monotonic() + deadline_s
    with _demand(resources):
        while not (placement := judge_placement(resources, nodes())).possible:
            if time.monotonic() > give_up_at:
                raise ResourcesUnavailableError(
                    f"{placement.reason}; no such node came within {deadline_s:g} s"
                )
            time.sleep(look_interval_s)


@contextmanager
def _demand(resources: ResourcesSpec) -> Iterator[None]:
    """Show the autoscaler what is missing: it starts nodes for groups that cannot be placed."""
    bundle = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker or 0}
    group = placement_group(
        [{name: amount for name, amount in bundle.items() if amount}] * resources.fewest_workers
    )
    try:
        yield
    finally:
        remove_placement_group(group)

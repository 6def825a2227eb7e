"""Whether the cluster can ever place a job's workers, and whether their memory is there."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.errors import ResourcesUnavailableError
from jobs.finetune import plan_workers
from workers.memory import Device
from workers.specs import ResourcesSpec

Node = Mapping[str, float]
"""Ray's totals of one node by resource name; `memory` is what Ray leaves for workers (bytes)."""


@dataclass(frozen=True)
class Placement:
    """Where a job's workers would run, on the nodes that the cluster has now."""

    possible: bool
    """Whether the nodes are large enough for all workers once nothing else runs there."""

    reason: str | None
    """Why not, and what to do."""

    device: Device
    """What the workers train on."""


@dataclass(frozen=True)
class MemoryFit:
    """Whether the workers' memory is there; Ray does not reserve any for them."""

    fits: bool | None
    """None where it is unknown, or depends on where Ray places the workers."""

    reason: str | None
    """What is missing or unknown."""


def judge_placement(resources: ResourcesSpec, nodes: Sequence[Node]) -> Placement:
    """Hold what a job asks for against every node: each worker must fit on one as a whole."""
    try:
        bundle = _bundle(resources, nodes)
    except ResourcesUnavailableError as error:
        return Placement(False, str(error), "gpu" if resources.gpus_per_worker else "cpu")
    device: Device = "gpu" if bundle.get("GPU") else "cpu"
    num_places = sum(_places(node, bundle) for node in nodes)
    if num_places >= resources.num_workers:
        return Placement(True, None, device)
    wanted = " and ".join(f"{amount:g} {name}" for name, amount in bundle.items())
    return Placement(
        False,
        f"resources: {resources.num_workers} worker(s) need {wanted} each, all on one node, and "
        f"the cluster's {len(nodes)} node(s) have room for {num_places} such worker(s); "
        "ask for less per worker or add larger nodes",
        device,
    )


def judge_memory(
    resources: ResourcesSpec, nodes: Sequence[Node], bytes_each: int | None
) -> MemoryFit:
    """Hold the workers' estimated memory against that of the nodes, where they can be placed."""
    if bytes_each is None:
        return MemoryFit(None, "the memory of this base model cannot be estimated")
    try:
        bundle = _bundle(resources, nodes)
    except ResourcesUnavailableError:
        return MemoryFit(None, None)
    if bundle.get("GPU"):
        return MemoryFit(None, "Ray does not tell how much memory a GPU has")
    places = [(min(_places(node, bundle), resources.num_workers), node) for node in nodes]
    if any(number and "memory" not in node for number, node in places):
        return MemoryFit(None, "Ray does not tell how much memory some node has")
    held = [(number, int(node.get("memory", 0) // bytes_each)) for number, node in places]
    if all(number <= room for number, room in held):
        return MemoryFit(True, None)
    gib = bytes_each / 2**30
    if sum(min(number, room) for number, room in held) < resources.num_workers:
        return MemoryFit(
            False,
            f"{resources.num_workers} worker(s) take about {gib:.1f} GiB each, more than Ray "
            "has for them on the cluster's nodes; lower training.micro_batch_size, shorten the "
            "longest rows, choose a smaller base model, or add memory",
        )
    return MemoryFit(
        None,
        f"workers take about {gib:.1f} GiB each: enough is there over all nodes, but not on "
        "every node for as many as Ray may place there",
    )


def _bundle(resources: ResourcesSpec, nodes: Sequence[Node]) -> dict[str, float]:
    """What each worker reserves, as the job itself would have it."""
    total: Counter[str] = Counter()
    for node in nodes:
        total.update(node)
    return dict(plan_workers(resources, total).resources_per_worker)


def _places(node: Node, bundle: Mapping[str, float]) -> int:
    """How many workers an empty node holds."""
    return min(int(node.get(name, 0) // amount) for name, amount in bundle.items())

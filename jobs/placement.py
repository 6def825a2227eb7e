"""Whether the cluster can ever place a job's workers, and whether their memory is there."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ray
from ray.train import ScalingConfig

from jobs.errors import ResourcesUnavailableError
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


def live_nodes() -> list[Node]:
    """The nodes of the cluster that this process is connected to."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def plan_workers(resources: ResourcesSpec, nodes: Sequence[Node]) -> ScalingConfig:
    """Place the workers on GPUs where the cluster has enough, and refuse what can never fit.

    Args:
        resources: What the job asks for; of an elastic job, its fewest workers count.
        nodes: Ray's totals of each node, once nothing else runs there.

    Raises:
        ResourcesUnavailableError: If the nodes are too small for all workers.
    """
    bundle = worker_bundle(resources, nodes)
    num_workers = resources.fewest_workers
    num_places = sum(places(node, bundle) for node in nodes)
    if num_places < num_workers:
        wanted = " and ".join(f"{amount:g} {name}" for name, amount in bundle.items())
        raise ResourcesUnavailableError(
            f"resources: {num_workers} worker(s) need {wanted} each, all on one node, and the "
            f"cluster's {len(nodes)} node(s) have room for {num_places} such worker(s); "
            "ask for less per worker or add larger nodes"
        )
    return ScalingConfig(
        num_workers=resources.num_workers, use_gpu="GPU" in bundle, resources_per_worker=bundle
    )


def judge_placement(resources: ResourcesSpec, nodes: Sequence[Node]) -> Placement:
    """As `plan_workers`, as an answer."""
    try:
        scaling = plan_workers(resources, nodes)
    except ResourcesUnavailableError as error:
        return Placement(False, str(error), "gpu" if resources.gpus_per_worker else "cpu")
    return Placement(True, None, "gpu" if scaling.use_gpu else "cpu")


def judge_memory(
    resources: ResourcesSpec, nodes: Sequence[Node], bytes_each: int | None
) -> MemoryFit:
    """Hold the workers' estimated memory against that of the nodes, where they can be placed."""
    if bytes_each is None:
        return MemoryFit(None, "the memory of this base model cannot be estimated")
    try:
        bundle = worker_bundle(resources, nodes)
    except ResourcesUnavailableError:
        return MemoryFit(None, None)
    if bundle.get("GPU"):
        return MemoryFit(None, "Ray does not tell how much memory a GPU has")
    hosts = [(min(places(node, bundle), resources.fewest_workers), node) for node in nodes]
    if any(number and "memory" not in node for number, node in hosts):
        return MemoryFit(None, "Ray does not tell how much memory some node has")
    held = [(number, int(node.get("memory", 0) // bytes_each)) for number, node in hosts]
    if all(number <= room for number, room in held):
        return MemoryFit(True, None)
    gib = bytes_each / 2**30
    if sum(min(number, room) for number, room in held) < resources.fewest_workers:
        return MemoryFit(
            False,
            f"{resources.fewest_workers} worker(s) take about {gib:.1f} GiB each, more than Ray "
            "has for them on the cluster's nodes; lower training.micro_batch_tokens, shorten the "
            "longest rows, choose a smaller base model, or add memory",
        )
    return MemoryFit(
        None,
        f"workers take about {gib:.1f} GiB each: enough is there over all nodes, but not on "
        "every node for as many as Ray may place there",
    )


def worker_bundle(resources: ResourcesSpec, nodes: Sequence[Node]) -> dict[str, float]:
    """What each worker reserves.

    Raises:
        ResourcesUnavailableError: If the whole cluster is smaller than what is asked for.
    """
    cluster: Counter[str] = Counter()
    for node in nodes:
        cluster.update(node)
    num_workers = resources.fewest_workers
    gpus_each = resources.gpus_per_worker
    if gpus_each is None:
        gpus_each = 1 if cluster["GPU"] >= num_workers else 0
    wanted = {"CPU": num_workers * resources.cpus_per_worker, "GPU": num_workers * gpus_each}
    for name, amount in wanted.items():
        if amount > cluster[name]:
            raise ResourcesUnavailableError(
                f"resources: {num_workers} worker(s) need {amount} {name} together, "
                f"the cluster has {cluster[name]:g}; ask for fewer or add nodes"
            )
    bundle = {"CPU": float(resources.cpus_per_worker)}
    return bundle | {"GPU": float(gpus_each)} if gpus_each else bundle


def places(node: Node, bundle: Mapping[str, float]) -> int:
    """How many workers an empty node holds."""
    # A fifth of a GPU goes five times into one, though not in binary fractions.
    return min(int(node.get(name, 0) / amount + 1e-6) for name, amount in bundle.items())

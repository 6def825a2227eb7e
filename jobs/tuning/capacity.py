"""How many trainings that are alike, such as trials, the cluster holds at a time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import ray
import torch
from ray.exceptions import GetTimeoutError

from jobs.errors import ResourcesUnavailableError
from jobs.placement import Node, places, worker_bundle
from jobs.search_specs import SearchSpec
from workers.specs import ResourcesSpec

_MOST_TRIALS_A_GPU = 8
_USABLE_MEMORY = 0.85
_GPU_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Capacity:
    """Where trials run."""

    bundle: dict[str, float]
    """What Ray reserves for each; of nested trials, for each worker."""

    num_trials: int
    """Trials at a time."""


def plan_trials(
    spec: SearchSpec,
    nodes: Sequence[Node],
    bytes_each: int | None = None,
    gpu_bytes: int | None = None,
) -> Capacity:
    """Place trials on the nodes, several on a GPU where its memory holds them.

    Args:
        spec: The search.
        nodes: Ray's totals of each node.
        bytes_each: Estimated memory of a trial; None if unknown.
        gpu_bytes: Memory of the smallest GPU; None if unknown.

    Raises:
        ResourcesUnavailableError: If the cluster is too small for one trial, or for as many at a
            time as the spec asks for.
    """
    found = plan_trainings(spec.resources, nodes, bytes_each, gpu_bytes, spec.trials_per_gpu)
    wanted_at_once = spec.max_concurrent_trials
    if wanted_at_once is not None and wanted_at_once > found.num_trials:
        raise ResourcesUnavailableError(
            f"max_concurrent_trials: {wanted_at_once} trials are to run at a time and the cluster "
            f"holds {found.num_trials}; ask for fewer, leave it out, or add nodes"
        )
    return Capacity(found.bundle, wanted_at_once or found.num_trials)


def plan_trainings(
    resources: ResourcesSpec,
    nodes: Sequence[Node],
    bytes_each: int | None = None,
    gpu_bytes: int | None = None,
    per_gpu: int | None = None,
) -> Capacity:
    """Place trainings that are alike on the nodes, several on a GPU where its memory holds them.

    Args:
        resources: What each asks for.
        nodes: Ray's totals of each node.
        bytes_each: Estimated memory of a training; None if unknown.
        gpu_bytes: Memory of the smallest GPU; None if unknown.
        per_gpu: Trainings on a GPU, where the user says so.

    Raises:
        ResourcesUnavailableError: If the cluster is too small for one.
    """
    bundle = worker_bundle(resources, nodes)
    if "GPU" in bundle and resources.most_workers == 1:
        bundle["GPU"] = 1 / (per_gpu or _trials_per_gpu(bytes_each, gpu_bytes))
    num_workers = resources.fewest_workers
    holds = sum(_on_node(node, bundle, bytes_each) for node in nodes) // num_workers
    if holds == 0:
        wanted = " and ".join(f"{amount:g} {name}" for name, amount in bundle.items())
        raise ResourcesUnavailableError(
            f"resources: a training needs {num_workers} worker(s) with {wanted} each, and the "
            f"cluster's {len(nodes)} node(s) have no room for one; ask for less or add larger nodes"
        )
    return Capacity(bundle, holds)


def gpu_bytes() -> int | None:
    """Memory of one of the cluster's GPUs; None where it has none, or none is free for a minute."""
    if not ray.cluster_resources().get("GPU"):
        return None
    measured = ray.remote(num_gpus=1)(_total_gpu_memory).remote()
    try:
        return int(ray.get(measured, timeout=_GPU_PATIENCE_S))
    except GetTimeoutError:
        ray.cancel(measured)
        return None


def _total_gpu_memory() -> int:
    return int(torch.cuda.get_device_properties(0).total_memory)


def _trials_per_gpu(bytes_each: int | None, gpu_bytes: int | None) -> int:
    if bytes_each is None or gpu_bytes is None:
        return 1
    return max(1, min(_MOST_TRIALS_A_GPU, int(_USABLE_MEMORY * gpu_bytes // bytes_each)))


def _on_node(node: Node, bundle: dict[str, float], bytes_each: int | None) -> int:
    number = places(node, bundle)
    if "GPU" in bundle or bytes_each is None or "memory" not in node:
        return number
    # One at least: the estimate is no more than that.
    return min(number, max(1, math.floor(node["memory"] / bytes_each)))

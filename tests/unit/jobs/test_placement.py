"""Whether the nodes of a cluster can hold a job's workers."""

import pytest

from jobs.errors import ResourcesUnavailableError
from jobs.placement import Node, judge_memory, judge_placement, plan_workers
from workers.specs import ResourcesSpec

GIB = 2**30
SMALL: Node = {"CPU": 2.0, "memory": 4.0 * GIB}
LARGE: Node = {"CPU": 8.0, "GPU": 2.0, "memory": 16.0 * GIB}


@pytest.mark.parametrize(
    ("resources", "nodes", "device"),
    [
        (ResourcesSpec(), [SMALL], "cpu"),
        (ResourcesSpec(num_workers=2), [SMALL], "cpu"),
        (ResourcesSpec(num_workers=2, cpus_per_worker=2), [SMALL, SMALL], "cpu"),
        (ResourcesSpec(num_workers=2), [SMALL, LARGE], "gpu"),
        (ResourcesSpec(num_workers=2, gpus_per_worker=0), [LARGE], "cpu"),
    ],
)
def test_workers_that_fit_are_placed_where_the_job_would_run_them(
    resources: ResourcesSpec, nodes: list[Node], device: str
) -> None:
    placement = judge_placement(resources, nodes)
    assert (placement.possible, placement.reason, placement.device) == (True, None, device)


@pytest.mark.parametrize(
    ("resources", "nodes", "sentence"),
    [
        (ResourcesSpec(cpus_per_worker=3), [SMALL], "need 3 CPU together, the cluster has 2"),
        (ResourcesSpec(gpus_per_worker=1), [SMALL], "need 1 GPU together, the cluster has 0"),
        (ResourcesSpec(cpus_per_worker=3), [SMALL, SMALL], "need 3 CPU each, all on one node"),
        (ResourcesSpec(num_workers=3, cpus_per_worker=3), [LARGE, SMALL], "room for 2 such"),
        (ResourcesSpec(), [], "the cluster has 0"),
    ],
    ids=["too few CPUs", "no GPU", "no node with 3", "a remainder on each", "no nodes"],
)
def test_workers_that_no_node_can_hold_are_never_placed(
    resources: ResourcesSpec, nodes: list[Node], sentence: str
) -> None:
    placement = judge_placement(resources, nodes)
    assert not placement.possible
    assert placement.reason is not None
    assert sentence in placement.reason


@pytest.mark.parametrize(
    ("num_workers", "nodes", "gib_each", "fits"),
    [
        (1, [SMALL], 3, True),
        (2, [SMALL], 3, False),
        (1, [SMALL], 5, False),
        (2, [SMALL, SMALL], 3, None),
        (2, [{"CPU": 2.0}], 1, None),
        (2, [LARGE], 1, None),
        (9, [SMALL], 1, None),
    ],
    ids=["room", "two on a node", "too large", "if spread", "memory untold", "GPU", "no place"],
)
def test_memory_is_held_against_the_nodes_where_it_is_known(
    num_workers: int, nodes: list[Node], gib_each: int, fits: bool | None
) -> None:
    fit = judge_memory(ResourcesSpec(num_workers=num_workers), nodes, gib_each * GIB)
    assert fit.fits is fits


def test_memory_that_cannot_be_estimated_is_called_unknown() -> None:
    fit = judge_memory(ResourcesSpec(), [SMALL], None)
    assert (fit.fits, fit.reason) == (None, "the memory of this base model cannot be estimated")


@pytest.mark.parametrize(
    ("resources", "cluster", "use_gpu"),
    [
        (ResourcesSpec(), {"CPU": 2.0}, False),
        (ResourcesSpec(), {"CPU": 2.0, "GPU": 1.0}, True),
        (ResourcesSpec(num_workers=2), {"CPU": 2.0, "GPU": 1.0}, False),
        (ResourcesSpec(gpus_per_worker=0), {"CPU": 2.0, "GPU": 1.0}, False),
    ],
)
def test_workers_take_gpus_where_the_cluster_has_enough_for_all(
    resources: ResourcesSpec, cluster: dict[str, float], use_gpu: bool
) -> None:
    scaling = plan_workers(resources, [cluster])
    assert scaling.use_gpu is use_gpu
    assert scaling.num_workers == resources.num_workers
    assert scaling.resources_per_worker.get("GPU", 0) == float(use_gpu)


@pytest.mark.parametrize(
    ("resources", "sentence"),
    [
        (ResourcesSpec(num_workers=4), "need 4 CPU together, the cluster has 2"),
        (ResourcesSpec(cpus_per_worker=3), "need 3 CPU together, the cluster has 2"),
        (ResourcesSpec(gpus_per_worker=1), "need 1 GPU together, the cluster has 0"),
    ],
)
def test_what_the_cluster_can_never_place_is_refused_before_it_waits(
    resources: ResourcesSpec, sentence: str
) -> None:
    with pytest.raises(ResourcesUnavailableError, match=sentence):
        plan_workers(resources, [{"CPU": 2.0, "memory": 1e9}])

"""How many trials run at a time, and what is refused."""

from typing import Any

import pytest

from jobs.errors import ResourcesUnavailableError
from jobs.placement import Node
from jobs.search_specs import SearchSpec
from jobs.tuning.capacity import plan_trials

GIB = 2**30
SMALL: Node = {"CPU": 2.0, "memory": 4.0 * GIB}
LARGE: Node = {"CPU": 8.0, "GPU": 2.0, "memory": 64.0 * GIB}


def spec_of(**changes: Any) -> SearchSpec:
    body = {
        "kind": "search",
        "name": "hunt",
        "base_model": "some/model",
        "data": {"train": "file-0123456789abcdef", "validation_rows": 8},
        "space": {"adapter.r": {"choice": [4, 8]}},
    }
    return SearchSpec.model_validate(body | changes)


@pytest.mark.parametrize(
    ("changes", "nodes", "gib_each", "num_trials"),
    [
        ({}, [SMALL], 1, 2),
        ({}, [SMALL], 3, 1),
        ({}, [SMALL], 9, 1),
        ({}, [SMALL], None, 2),
        ({}, [SMALL, SMALL], 1, 4),
        ({"resources": {"cpus_per_worker": 2}}, [SMALL, SMALL], 1, 2),
        ({"resources": {"num_workers": 2}}, [SMALL, SMALL], 1, 2),
        ({"max_concurrent_trials": 1}, [SMALL], 1, 1),
        ({}, [LARGE], 1, 8),
        ({"resources": {"gpus_per_worker": 0}}, [LARGE], 1, 8),
        ({"trials_per_gpu": 3}, [LARGE], 1, 6),
        ({"trials_per_gpu": 5}, [LARGE | {"CPU": 64.0}], 1, 10),
        ({"trials_per_gpu": 1}, [LARGE], 1, 2),
    ],
)
def test_as_many_trials_run_as_cores_gpus_and_memory_hold(
    changes: dict[str, Any], nodes: list[Node], gib_each: float | None, num_trials: int
) -> None:
    bytes_each = int(gib_each * GIB) if gib_each else None
    capacity = plan_trials(spec_of(**changes), nodes, bytes_each, gpu_bytes=80 * GIB)
    assert capacity.num_trials == num_trials


@pytest.mark.parametrize(("gib_each", "share"), [(1, 1 / 8), (10, 1 / 6), (50, 1), (None, 1)])
def test_a_gpu_is_shared_by_as_many_trials_as_its_memory_is_estimated_to_hold(
    gib_each: int | None, share: float
) -> None:
    bytes_each = gib_each * GIB if gib_each else None
    capacity = plan_trials(spec_of(), [LARGE], bytes_each, gpu_bytes=80 * GIB)
    assert capacity.bundle["GPU"] == share


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_concurrent_trials": 3}, "max_concurrent_trials: 3 trials .* the cluster holds 2"),
        ({"resources": {"cpus_per_worker": 3}}, "need 3 CPU together, the cluster has 2"),
        ({"resources": {"gpus_per_worker": 1}}, "need 1 GPU together, the cluster has 0"),
    ],
)
def test_more_than_the_cluster_can_ever_hold_is_refused(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ResourcesUnavailableError, match=words):
        plan_trials(spec_of(**changes), [SMALL])

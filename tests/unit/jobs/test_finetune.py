"""Where a fine-tune is placed, and what is refused because it can never be."""

import pytest

from jobs.errors import ResourcesUnavailableError
from jobs.placement import plan_workers
from workers.specs import ResourcesSpec


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

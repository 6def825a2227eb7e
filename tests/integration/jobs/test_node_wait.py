"""Waiting for nodes, on a real cluster to which a node is added meanwhile."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group_table

from jobs.errors import ResourcesUnavailableError
from jobs.node_wait import await_nodes
from workers.specs import ResourcesSpec

pytestmark = [
    pytest.mark.integration,
    # Ray's cluster for tests does not wait for the processes that it ends.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ONE_GPU = ResourcesSpec(gpus_per_worker=1)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_a_job_goes_on_once_a_node_has_come_and_its_demand_is_taken_back(cluster: Cluster) -> None:
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(await_nodes, ONE_GPU, deadline_s=240)
        while not placement_group_table():
            assert not waiting.done()
            time.sleep(0.1)
        cluster.add_node(num_cpus=1, num_gpus=1)  # Ray starts nodes from main threads alone
        waiting.result()

    assert {group["state"] for group in placement_group_table().values()} == {"REMOVED"}


def test_without_such_a_node_the_job_fails_with_what_is_missing_and_for_how_long(
    cluster: Cluster,
) -> None:
    with pytest.raises(
        ResourcesUnavailableError, match=r"need 1 GPU together.*has 0.*no such node came within 1 s"
    ):
        await_nodes(ONE_GPU, deadline_s=1)

    assert {group["state"] for group in placement_group_table().values()} == {"REMOVED"}


def test_nothing_is_waited_for_where_the_nodes_suffice(cluster: Cluster) -> None:
    await_nodes(ResourcesSpec(), deadline_s=120)

    assert placement_group_table() == {}


def test_nothing_is_waited_for_on_a_cluster_that_does_not_grow(cluster: Cluster) -> None:
    await_nodes(ONE_GPU, deadline_s=0)

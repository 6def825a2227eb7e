"""Delta-hyperbolicity: known values, and the same numbers as a search of all triples."""

import math

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hyplora.analysis import gromov
from hyplora.analysis.gromov import delta_of_products, gromov_products, pairwise_distances
from hyplora.analysis.hyperbolicity import (
    Sampling,
    measure_clouds,
    measure_hyperbolicity,
    measure_metric,
)
from hyplora.errors import AnalysisError


def delta_by_triples(products: Tensor) -> float:
    """Search all triples."""
    numbers = products.numpy()
    widest = np.minimum(numbers[:, :, None], numbers[None]).max(1)
    return float((widest - numbers).max())


def delta_by_quadruples(distances: Tensor) -> float:
    """Half the largest gap between the two largest sums of opposite distances of four points."""
    d = distances.numpy()
    opposite = [
        d[:, :, None, None] + d[None, None],
        d[:, None, :, None] + d[None, :, None, :],
        d[:, None, None, :] + d[None, :, :, None],
    ]
    sums = np.sort(np.stack(np.broadcast_arrays(*opposite)), axis=0)
    return float((sums[2] - sums[1]).max()) / 2


def graph_distances(graph: nx.Graph) -> Tensor:
    return torch.from_numpy(nx.floyd_warshall_numpy(graph)).double()


def cloud(kind: str, n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, 16, generator=generator)
    if kind == "flat":
        return noise[:, :2]
    if kind == "clusters":
        centres = 5 * torch.randn(6, 16, generator=generator)
        return centres[torch.randint(6, (n,), generator=generator)] + 0.05 * noise
    if kind == "repeated":
        return noise[torch.randint(max(n // 3, 1), (n,), generator=generator)]
    return noise


@pytest.mark.parametrize("kind", ["gaussian", "flat", "clusters", "repeated"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("n", [3, 4, 57, 150, 310])
def test_bounds_leave_the_search_of_all_triples_its_every_bit(
    kind: str, dtype: torch.dtype, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gromov, "_FEW_POINTS", 0 if n < 300 else 300)
    distances = pairwise_distances(cloud(kind, n), dtype)
    for base in (0, n - 1):
        products = gromov_products(distances, base)
        assert delta_of_products(products) == delta_by_triples(products)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(2, 18),
    edge_rate=st.floats(0.05, 0.9),
    seed=st.integers(0, 10_000),
    base=st.integers(0, 17),
    few_points=st.sampled_from([0, 300]),
)
def test_graphs_have_the_delta_of_a_search_of_all_triples(
    n: int, edge_rate: float, seed: int, base: int, few_points: int
) -> None:
    graph = nx.gnp_random_graph(n, edge_rate, seed=seed)
    graph.add_edges_from((node, node + 1) for node in range(n - 1))  # connected
    products = gromov_products(graph_distances(graph), base % n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gromov, "_FEW_POINTS", few_points)
        assert delta_of_products(products) == delta_by_triples(products)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(4, 10), edge_rate=st.floats(0.1, 0.8), seed=st.integers(0, 10_000))
def test_base_points_keep_within_a_factor_of_two_of_the_four_point_condition(
    n: int, edge_rate: float, seed: int
) -> None:
    graph = nx.gnp_random_graph(n, edge_rate, seed=seed)
    graph.add_edges_from((node, node + 1) for node in range(n - 1))
    distances = graph_distances(graph)
    found = measure_metric(distances, Sampling(num_base_points=n))
    exact = delta_by_quadruples(distances)
    assert found.largest_delta == exact
    assert exact <= 2 * found.smallest_delta


@pytest.mark.parametrize("few_points", [0, 300])
@pytest.mark.parametrize("seed", range(5))
def test_a_tree_is_zero_hyperbolic_from_every_base_point(
    seed: int, few_points: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gromov, "_FEW_POINTS", few_points)
    tree = nx.random_labeled_tree(40, seed=seed)
    found = measure_metric(graph_distances(tree), Sampling(num_base_points=40))
    assert found.largest_delta == 0
    assert found.relative == 0


def test_points_at_equal_distances_are_a_tree_with_one_branch_each() -> None:
    assert measure_hyperbolicity(torch.eye(12, dtype=torch.float64)).delta == pytest.approx(
        0, abs=1e-7
    )


@pytest.mark.parametrize("n", range(4, 18))
def test_a_cycle_has_the_delta_that_graph_theory_gives_it(n: int) -> None:
    found = measure_metric(graph_distances(nx.cycle_graph(n)))
    assert found.delta == n // 4 - (0.5 if n % 4 == 1 else 0)


@pytest.mark.parametrize("radius", [1e-3, 1.0, 500.0])
def test_a_circle_in_the_plane_has_the_delta_of_its_inscribed_square(radius: float) -> None:
    angles = torch.arange(120, dtype=torch.float64) * math.tau / 120
    points = radius * torch.stack([angles.cos(), angles.sin()], 1)
    found = measure_hyperbolicity(points, dtype=torch.float64)
    assert found.diameter == pytest.approx(2 * radius)
    assert found.delta == pytest.approx((2 - math.sqrt(2)) * radius)
    assert found.relative == pytest.approx(2 - math.sqrt(2))


def test_single_precision_changes_delta_by_its_rounding_alone() -> None:
    points = cloud("gaussian", 300) + 100  # far from the origin, as hidden states are
    narrow = measure_hyperbolicity(points, dtype=torch.float32)
    wide = measure_hyperbolicity(points, dtype=torch.float64)
    assert narrow.delta == pytest.approx(wide.delta, abs=4 * torch.finfo().eps * wide.diameter)


def test_distances_are_symmetric_and_keep_close_points_apart() -> None:
    points = torch.cat([cloud("gaussian", 900).double(), torch.full((2, 16), 1e3)])
    points[-1, 0] += 1e-3
    distances = pairwise_distances(points, torch.float64)
    assert torch.equal(distances, distances.T)
    assert not distances.diagonal().any()
    assert float(distances[-1, -2]) == pytest.approx(1e-3, rel=1e-2)
    direct = (points[:, None] - points[None]).norm(dim=-1)
    torch.testing.assert_close(distances, direct, rtol=1e-6, atol=1e-5)


def test_repeated_points_do_not_matter() -> None:
    points = cloud("gaussian", 40)
    sampling = Sampling(num_base_points=1000)
    once = measure_hyperbolicity(points, sampling)
    twice = measure_hyperbolicity(points.repeat(2, 1), sampling)
    assert twice.largest_delta == pytest.approx(once.largest_delta, abs=1e-6)


def test_relative_delta_does_not_depend_on_scale_or_place() -> None:
    points = cloud("clusters", 60)
    here, there = (measure_hyperbolicity(each) for each in (points, 1e3 * points + 7))
    assert there.relative == pytest.approx(here.relative, rel=1e-5)
    assert there.delta == pytest.approx(1e3 * here.delta, rel=1e-5)


def test_a_seed_decides_which_points_are_looked_at() -> None:
    points = cloud("gaussian", 200)
    first, again, other = (
        measure_hyperbolicity(points, Sampling(2, max_points=50, seed=seed)) for seed in (1, 1, 2)
    )
    assert first == again != other
    assert (first.num_points, first.num_left_out) == (50, 150)


def test_clouds_are_summarized_and_those_without_two_points_counted() -> None:
    clouds = [cloud("gaussian", 30, seed) for seed in (1, 2)]
    found = measure_clouds([*clouds, clouds[0][:1], clouds[0][[0, 0]]])
    assert (found.num_clouds, found.num_skipped) == (2, 2)
    values = [each.relative for each in found.clouds if each is not None]
    assert found.mean_relative == pytest.approx(np.mean(values))
    assert found.sd_relative == pytest.approx(np.std(values, ddof=1))
    assert measure_clouds([]).mean_relative is None


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (torch.zeros(5, 3), "two distinct points"),
        (torch.zeros(0, 3), "two distinct points"),
        (torch.tensor([[0.0], [math.nan]]), "not finite"),
    ],
)
def test_what_has_no_hyperbolicity_is_refused(points: Tensor, message: str) -> None:
    with pytest.raises(AnalysisError, match=message):
        measure_hyperbolicity(points)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["gaussian", "flat", "clusters"])
def test_a_gpu_finds_the_same_delta_from_the_same_products(kind: str) -> None:
    products = gromov_products(pairwise_distances(cloud(kind, 2000)), 0)
    assert delta_of_products(products.cuda()) == delta_of_products(products)

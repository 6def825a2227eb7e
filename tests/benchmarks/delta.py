"""What exact delta-hyperbolicity costs: bounds on pairs beside an n x n x n array.

    python tests/benchmarks/delta.py [--sizes 200 400 800] [--ideas] [--large 20000] [--json FILE]

Needs torch, numpy and hyplora. Both are given the same Gromov products and must find the same
number. The direct version is numpy's shortest, `minimum(g[:, :, None], g[None]).max(1) - g`. In a
round both run once, in an order that alternates, and the ratio is taken within the round. Clouds
are Gaussian in 576 dimensions, as embeddings are; clusters of clusters; and a disc, whose bounds
are poor. Memory is how far the process grows, each in a fresh process. `--ideas` adds what was
tried on the way. The last line is `RESULT {json}`, each figure the worst over the first two clouds
unless it says otherwise:

    speedup_vs_direct          direct / bounds, float64, the largest n
    speedup_vs_direct_float32  the same in float32
    speedup_on_a_disc          direct / bounds, the worst of both dtypes, the largest n
    memory_vs_direct           memory of bounds / direct, float64, the largest n
    large_seconds              float32, from points to delta, with --large
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from machine import machine, num_cores
from torch import Tensor

from hyplora.analysis.gromov import delta_of_products, gromov_products, pairwise_distances

DTYPES = {"float64": torch.float64, "float32": torch.float32}
Method = Callable[[Tensor], float]


def direct(products: Tensor) -> float:
    """Every triple at once."""
    numbers = products.numpy()
    widest = np.minimum(numbers[:, :, None], numbers[None]).max(1)
    return float((widest - numbers).max())


def blocked(products: Tensor) -> float:
    """Some rows at a time."""
    best = 0.0
    for rows in products.split(8):
        widest = torch.minimum(rows[:, None], products[None]).amax(2)
        best = max(best, float((widest - rows).max()))
    return best


def symmetric(products: Tensor) -> float:
    """Some rows at a time, each pair once."""
    best = 0.0
    for start in range(0, len(products), 8):
        rows = products[start : start + 8]
        widest = torch.minimum(rows[:, None], products[None, start:]).amax(2)
        best = max(best, float((widest - rows[:, start:]).max()))
    return best


def row_bounds(products: Tensor) -> float:
    """Pairs by falling bound, the smaller of their rows' largest products."""
    i, j = torch.triu_indices(len(products), len(products), 1)
    largest = products.clone().fill_diagonal_(-1).amax(1)
    bounds, order = (torch.minimum(largest[i], largest[j]) - products[i, j]).sort(descending=True)
    best = 0.0
    for start in range(0, len(order), 1024):
        if bounds[start] <= best:
            break
        pairs = order[start : start + 1024]
        widest = torch.minimum(products[i[pairs]], products[j[pairs]]).amax(1)
        best = max(best, float((widest - products[i[pairs], j[pairs]]).max()))
    return best


@torch.compile(dynamic=False)
def _widest(rows: Tensor, products: Tensor) -> Tensor:
    return torch.minimum(rows[:, None], products[None]).amax(2)


def compiled(products: Tensor) -> float:
    """Some rows at a time, in a loop that torch.compile fuses; needs a C++ compiler."""
    return max(float((_widest(r, products) - r).max()) for r in products.split(8))


METHODS: dict[str, Method] = {"direct": direct, "bounds": delta_of_products}
IDEAS: dict[str, Method] = {
    "blocked": blocked,
    "symmetric": symmetric,
    "compiled": compiled,
    "row bounds": row_bounds,
}


def cloud(kind: str, n: int) -> Tensor:
    """Make points of a kind."""
    generator = torch.Generator().manual_seed(0)
    if kind == "gaussian":
        return torch.randn(n, 576, generator=generator)
    if kind == "disc":
        angle = torch.rand(n, generator=generator) * 2 * torch.pi
        radius = torch.rand(n, generator=generator).sqrt()[:, None]
        return radius * torch.stack([angle.cos(), angle.sin()], 1)
    points = 0.01 * torch.randn(n, 64, generator=generator)
    branch = torch.arange(n)
    for level in range(7, -1, -1):
        centres = 0.6**level * torch.randn(2**level, 64, generator=generator)
        points += centres[branch % 2**level]
    return points


KINDS = ("gaussian", "clusters", "disc")


def products_of(kind: str, n: int, dtype: torch.dtype) -> Tensor:
    """Make the input of every method."""
    return gromov_products(pairwise_distances(cloud(kind, n), dtype), 0)


def measure(
    methods: dict[str, Method], products: Tensor, rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Give each method's median seconds and its speed-up over direct in the same round."""
    found = {name: method(products) for name, method in methods.items()}
    if len(set(found.values())) > 1:
        raise SystemExit(f"the methods disagree: {found}")
    seconds = defaultdict[str, list[float]](list)
    names = list(methods)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            started = time.perf_counter()
            methods[name](products)
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = {
        name: statistics.median(
            direct / own for direct, own in zip(seconds["direct"], values, strict=True)
        )
        for name, values in seconds.items()
    }
    return medians, ratios


def growth_bytes(method: str, kind: str, n: int) -> int:
    """Measure, in a fresh process, how far a method makes it grow."""
    command = [sys.executable, __file__, "--growth", method, kind, str(n)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def print_growth(method: str, kind: str, n: int) -> None:
    """Be that process."""
    METHODS["bounds"](products_of(kind, 8, torch.float64))
    products = products_of(kind, n, torch.float64)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = _status_kib("VmRSS")
    METHODS[method](products)
    print(max(_status_kib("VmHWM") - before, 1) * 1024)


def large_seconds(kind: str, n: int) -> float:
    """Time a large cloud, from points to delta."""
    points = cloud(kind, n)
    started = time.perf_counter()
    delta_of_products(gromov_products(pairwise_distances(points), 0))
    return time.perf_counter() - started


def table(options: argparse.Namespace) -> dict[str, dict[str, dict[str, float]]]:
    """Measure and print every size, dtype and cloud."""
    methods = METHODS | (IDEAS if options.ideas else {})
    figures: dict[str, dict[str, dict[str, float]]] = {}
    print("| n | dtype | cloud | method | ms | x faster |\n| --- | --- | --- | --- | --- | --- |")
    for n in options.sizes:
        for dtype_name, dtype in DTYPES.items():
            for kind in KINDS:
                products = products_of(kind, n, dtype)
                medians, ratios = measure(methods, products, options.rounds)
                figures[f"{n} {dtype_name} {kind}"] = {"seconds": medians, "speedup": ratios}
                for name, value in medians.items():
                    print(
                        f"| {n} | {dtype_name} | {kind} | {name} | {1000 * value:.1f} "
                        f"| {ratios[name]:.1f} |",
                        flush=True,
                    )
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[200, 400, 800])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ideas", action="store_true", help="measure what was tried, too")
    parser.add_argument("--large", type=int, help="size of a large Gaussian cloud to time")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    parser.add_argument("--growth", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.growth:
        method, kind, n = options.growth
        return print_growth(method, kind, int(n))
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "cores": num_cores(),
        "threads": torch.get_num_threads(),
        "versions": f"torch {torch.__version__}, numpy {np.__version__}",
        "rounds": options.rounds,
    }
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    figures = table(options)
    n = max(options.sizes)
    memory = {kind: {name: growth_bytes(name, kind, n) for name in METHODS} for kind in KINDS}
    for kind, sizes in memory.items():
        print(f"memory, n = {n}, {kind}: {sizes}")

    def slowest(dtypes: Iterable[str], kinds: Iterable[str]) -> float:
        keys = [f"{n} {dtype} {kind}" for dtype in dtypes for kind in kinds]
        return round(min(figures[key]["speedup"]["bounds"] for key in keys), 1)

    result = {
        "speedup_vs_direct": slowest(["float64"], KINDS[:2]),
        "speedup_vs_direct_float32": slowest(["float32"], KINDS[:2]),
        "speedup_on_a_disc": slowest(DTYPES, KINDS[2:]),
        "memory_vs_direct": round(max(m["bounds"] / m["direct"] for m in memory.values()), 5),
    }
    if options.large:
        result["large_seconds"] = round(large_seconds("gaussian", options.large), 1)
    if options.json:
        content = {**about, "figures": figures, "memory_bytes": memory, "result": result}
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    print(f"RESULT {json.dumps(result)}")
    return None


def _status_kib(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise SystemExit("/proc/self/status has no such line; measure memory on Linux")


if __name__ == "__main__":
    main()

"""Runs of a comparison that never took place, as its analysis would get them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jobs.compare_report.method_results import MethodResult, SeedRun, TaskScores
from jobs.compare_specs import CompareSpec

METHODS = ("base", "lora", "dora", "hyplora")


def comparison(**changes: Any) -> CompareSpec:
    body = {
        "kind": "compare",
        "name": "sums",
        "base_model": "some/model",
        "data": {"train": "file-0123456789abcdef", "validation_rows": 16},
        "methods": METHODS,
        "tasks": [
            {"benchmark": "gsm8k", "data": "file-1111111111111111"},
            {"benchmark": "svamp", "data": "file-2222222222222222"},
        ],
    }
    return CompareSpec.model_validate(body | changes)


def scores(values: Sequence[float], *, digest: str = "d", nlls: Sequence[float] = ()) -> TaskScores:
    return TaskScores(digest, tuple(map(float, values)), tuple(map(float, nlls)))


def results(
    *,
    effects: Mapping[str, float] | None = None,
    num_seeds: int = 3,
    rows: Mapping[str, int] | None = None,
    seed_luck: float = 0.05,
    seed: int = 0,
) -> list[MethodResult]:
    """Answers of methods that are `effects` apart in logits, on questions of many difficulties."""
    rng = np.random.default_rng(seed)
    effects = {"base": -0.6} | dict(effects or {})
    difficulty = {
        task: rng.normal(0, 1, num) for task, num in (rows or {"gsm8k": 400, "svamp": 300}).items()
    }
    found = []
    for method in METHODS:
        seeds = [None] if method == "base" else list(range(num_seeds))
        runs = []
        for each in seeds:
            luck = effects.get(method, 0.0) + float(rng.normal(0, seed_luck)) * (each is not None)
            tasks = {}
            for task, hard in difficulty.items():
                logits = 0.4 + luck - hard + rng.normal(0, 0.4, hard.size)
                nlls = np.log1p(np.exp(-logits))
                tasks[task] = scores((logits > 0).tolist(), digest=task, nlls=nlls.tolist())
            trained = each is not None
            runs.append(SeedRun(each, tasks, 300.0 * trained, 3 << 30 if trained else None))
        found.append(
            MethodResult(
                method,
                f"{method}, r = 8",
                tuple(runs),
                None if method == "base" else 3e-4,
                None if method == "base" else {1e-4: (1.0,), 3e-4: (0.9,), 1e-3: (1.1,)},
                0 if method == "base" else 1_000_000,
            )
        )
    return found

"""Trials of a search that never ran, as its analysis would get them."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jobs.search_report.trial_table import TrialRecord
from jobs.search_space import Value
from jobs.search_specs import SearchSpec
from jobs.tickets import TrialState

LOSS, SIZE = "eval/loss", "num_trainable_parameters"
CURVATURE, RANK = "adapter.curvature", "adapter.r"
LEARNING_RATE, LEARNED = "training.learning_rate", "adapter.learn_curvature"

SPACE: dict[str, Any] = {
    CURVATURE: {"loguniform": [0.1, 100.0]},
    RANK: {"choice": [4, 8, 16, 32]},
    LEARNING_RATE: {"loguniform": [3e-5, 3e-3]},
    LEARNED: {"choice": [False, True]},
}


def search(space: Mapping[str, Any] = SPACE, **changes: Any) -> SearchSpec:
    body = {
        "kind": "search",
        "name": "sums",
        "base_model": "some/model",
        "data": {"train": "file-0123456789abcdef", "validation_rows": 16},
        "space": space,
    }
    return SearchSpec.model_validate(body | changes)


def plausible_loss(values: Mapping[str, Value]) -> float:
    """A loss that has its best learning rate at 5e-4, a weak optimum of K, and likes rank."""
    rate, curvature, rank = (float(values[field]) for field in (LEARNING_RATE, CURVATURE, RANK))  # type: ignore[arg-type]
    off_rate, off_curvature = math.log10(rate / 5e-4), math.log10(curvature / 3)
    return 0.62 + 0.25 * off_rate**2 + 0.03 * off_curvature**2 - 0.02 * math.log2(rank / 4)


def trials(
    number: int,
    loss: Callable[[Mapping[str, Value]], float] = plausible_loss,
    *,
    noise: float = 0.02,
    seed: int = 0,
    stopped_part: float = 0.0,
    failed_part: float = 0.0,
) -> list[TrialRecord]:
    rng = np.random.default_rng(seed)
    found = []
    for index in range(number):
        values: dict[str, Value] = {
            CURVATURE: float(10 ** rng.uniform(-1, 2)),
            RANK: int(rng.choice([4, 8, 16, 32])),
            LEARNING_RATE: float(10 ** rng.uniform(-4.52, -2.52)),
            LEARNED: bool(rng.integers(2)),
        }
        end = loss(values) + noise * float(rng.normal())
        fate = rng.uniform()
        state = TrialState.COMPLETED
        if fate < failed_part:
            state = TrialState.FAILED
        elif fate < failed_part + stopped_part:
            state = TrialState.STOPPED
        found.append(_trial(index, values, end, state, rng))
    return found


def _trial(
    index: int, values: dict[str, Value], end: float, state: TrialState, rng: np.random.Generator
) -> TrialRecord:
    steps = {TrialState.COMPLETED: 200, TrialState.STOPPED: 60, TrialState.FAILED: 40}[state]
    curve = [
        (step, end + 1.2 * math.exp(-step / 40) + 0.005 * float(rng.normal()))
        for step in range(20, steps + 1, 20)
    ]
    is_complete = state is TrialState.COMPLETED
    rank = int(values[RANK])  # type: ignore[arg-type]
    return TrialRecord(
        trial_id=f"trial-{index:04d}",
        values=values,
        state=state,
        objectives={LOSS: end, SIZE: 1e6 * rank} if is_complete else {},
        errors={LOSS: 0.004, SIZE: 0.0} if is_complete else {},
        curves={LOSS: curve},
        steps=steps,
        seconds=steps * 0.7,
        reason="out of memory" if state is TrialState.FAILED else None,
    )

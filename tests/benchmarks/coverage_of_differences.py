"""How often an interval of a difference holds the truth, and a test finds what is not there.

    python tests/benchmarks/coverage_of_differences.py [num_draws]

Draws right and wrong answers of methods that are alike: a question has its difficulty, a method its
strengths by question, a seed its luck. Prints the table of docs/comparing.md.
"""

import sys
from collections import Counter

import numpy as np

from jobs.compare_report.difference import Answers, PairedDifference, seed_luck
from jobs.compare_report.method_results import Array
from jobs.compare_report.sign_flip import exact_sign_flip

NUM_ROWS = 1000
LUCK = {"none": 0.0, "1 point": 0.033, "3 points": 0.1}
"""Standard deviation of a seed's accuracy by luck alone, and what gives it in logits."""

HEADS = [
    "methods",
    "seeds",
    "luck of a seed",
    "interval here",
    "rows and seeds resampled",
    "`p_rows`",
    "`p_seeds`",
    "both",
]


def main(num_draws: int = 1000) -> None:
    """Print coverage, half widths in points, and false alarms at 5 %."""
    print(f"| {' | '.join(HEADS)} |\n{'| --- ' * len(HEADS)}|")
    for num_methods, num_seeds in [(2, 2), (2, 3), (6, 1), (6, 2), (6, 3), (6, 5)]:
        for name, luck in LUCK.items():
            rng = np.random.default_rng(0)
            counts: Counter[str] = Counter()
            for _ in range(num_draws):
                counts.update(_one_draw(rng, num_methods, num_seeds, luck))
            cells = [
                f"{100 * counts[kind] / num_draws:.0f} % "
                f"(± {counts[f'{kind} width'] / num_draws:.1f})"
                for kind in ("here", "resampled")
            ]
            alarms = [
                f"{100 * counts[kind] / num_draws:.0f} %" for kind in ("p_rows", "p_seeds", "both")
            ]
            head = [str(num_methods), str(num_seeds), name]
            print("| " + " | ".join([*head, *cells, *alarms]) + " |", flush=True)


def _one_draw(
    rng: np.random.Generator, num_methods: int, num_seeds: int, luck: float
) -> dict[str, float]:
    difficulty = rng.normal(0, 1.2, NUM_ROWS)
    methods = [Answers((_runs(rng, difficulty, num_seeds, luck),)) for _ in range(num_methods)]
    paired = PairedDifference(methods[0], methods[1], seed_luck(methods))
    (rows,) = paired.row_differences
    crossed = methods[0].tasks[0] - methods[1].tasks[0]
    intervals = {
        "here": paired.bootstrap_interval(),
        "resampled": _both_resampled(rng, crossed),
    }
    found: dict[str, float] = {}
    for kind, (low, high) in intervals.items():
        found |= {kind: low <= 0 <= high, f"{kind} width": 50 * (high - low)}
    p_rows = exact_sign_flip(np.rint(rows * num_seeds).astype(int).tolist())
    p_seeds = paired.difference.p_value if paired.difference.freedom else 0.0
    return found | {
        "p_rows": p_rows <= 0.05,
        "p_seeds": p_seeds <= 0.05,
        "both": max(p_rows, p_seeds) <= 0.05,
    }


def _runs(rng: np.random.Generator, difficulty: Array, num_seeds: int, luck: float) -> Array:
    strengths = rng.normal(0, 0.3, NUM_ROWS)
    of_seed = rng.normal(0, luck, (num_seeds, 1))
    answers = difficulty + strengths + of_seed + rng.normal(0, 0.5, (num_seeds, NUM_ROWS))
    return (answers > 0).astype(float)


def _both_resampled(rng: np.random.Generator, crossed: Array) -> tuple[float, float]:
    """Owen's interval: seeds and rows drawn apart, with replacement."""
    num_seeds, num_rows = crossed.shape
    seeds = rng.multinomial(num_seeds, np.ones(num_seeds) / num_seeds, 400) / num_seeds
    rows = rng.multinomial(num_rows, np.ones(num_rows) / num_rows, 400) / num_rows
    low, high = np.quantile(((rows @ crossed.T) * seeds).sum(axis=1), [0.025, 0.975])
    return float(low), float(high)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

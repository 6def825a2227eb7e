"""Every training and evaluation that a comparison comes to, before anything runs. Torch-free.

Rates are tried on the validation rows, one is chosen for each method, and only what that rate gave
is asked the tasks' questions: no task has a say in the choice.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from jobs.compare_specs import CompareSpec
from jobs.method_specs import MethodSpec


@dataclass(frozen=True)
class PlannedTraining:
    """One training of a method."""

    method: str
    seed: int

    learning_rate: float | None
    """None: the one that the trainings before have chosen."""


@dataclass(frozen=True)
class PlannedEvaluation:
    """One adapter, or the base model, that answers one task."""

    method: str

    seed: int | None
    """Of the training; None of the base model, which is asked once."""

    task: str


@dataclass(frozen=True)
class ComparePlan:
    """All that a comparison does, in its order."""

    choosing: tuple[PlannedTraining, ...]
    """Trainings that the learning rates are chosen by; none where there is nothing to choose."""

    final: tuple[PlannedTraining, ...]
    """Trainings at the chosen rate of the seeds that have not been trained at it."""

    evaluations: tuple[PlannedEvaluation, ...]

    @property
    def num_trainings(self) -> int:
        """Trainings of both kinds."""
        return len(self.choosing) + len(self.final)

    @property
    def num_evaluations(self) -> int:
        """Answers to a whole task."""
        return len(self.evaluations)


def plan(spec: CompareSpec) -> ComparePlan:
    """What a comparison comes to."""
    choosing: list[PlannedTraining] = []
    final: list[PlannedTraining] = []
    evaluations: list[PlannedEvaluation] = []
    for method in spec.methods:
        rates = spec.rates_of(method)
        choosers = _choosing_seeds(spec, method)
        choosing += [
            PlannedTraining(method.name, seed, rate) for rate in rates for seed in choosers
        ]
        if not method.is_base:
            known = rates[0] if len(rates) == 1 else None
            final += [
                PlannedTraining(method.name, seed, known)
                for seed in spec.seeds
                if seed not in choosers
            ]
        evaluations += [
            PlannedEvaluation(method.name, seed, task.name)
            for seed in ((None,) if method.is_base else spec.seeds)
            for task in spec.tasks
        ]
    return ComparePlan(tuple(choosing), tuple(final), tuple(evaluations))


def choose_learning_rate(nlls: Mapping[float, tuple[float, ...]]) -> float:
    """The rate with the lowest mean negative log-likelihood; of equals the smallest.

    Args:
        nlls: Of each rate that was tried, the validation rows' negative log-likelihood by seed
            (nats an answer token); a rate with one that is not finite has diverged and is out.

    Raises:
        ValueError: If no rate is left.
    """
    means = {rate: sum(values) / len(values) for rate, values in nlls.items() if values}
    finite = [(mean, rate) for rate, mean in means.items() if math.isfinite(mean)]
    if not finite:
        raise ValueError(
            f"no learning rate of {', '.join(f'{rate:g}' for rate in sorted(nlls)) or 'none'} "
            "trained to a finite loss; try smaller ones"
        )
    return min(finite)[1]


def _choosing_seeds(spec: CompareSpec, method: MethodSpec) -> tuple[int, ...]:
    if len(spec.rates_of(method)) < 2:
        return ()
    return spec.seeds if spec.rates_chosen_with == "all_seeds" else spec.seeds[:1]

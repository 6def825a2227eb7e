"""Which trainings of a comparison are due, and what those that have ended decide. Torch-free.

Everything here follows from the spec and the records alone, so that a driver that starts again
goes on from what is on record.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jobs.compare_plan import choose_learning_rate, plan
from jobs.compare_specs import CompareSpec
from jobs.comparison.training import Training, TrainingRecord

Records = Mapping[str, TrainingRecord]
"""Of the trainings that have ended, by their names."""


def due(spec: CompareSpec, records: Records) -> list[Training]:
    """The trainings that may run now, in the order of the plan.

    Those of a method's final seeds are among them once its learning rate is known.
    """
    planned = plan(spec)
    found = []
    for each in (*planned.choosing, *planned.final):
        rate = each.learning_rate or _rate_so_far(spec, each.method, records)
        if rate is not None:
            found.append(Training(each.method, rate, each.seed))
    return [training for training in found if training.name not in records]


def validation_nlls(
    spec: CompareSpec, method: str, records: Records
) -> dict[float, tuple[float, ...]]:
    """Of each rate that a method tried, what it is judged by, one value for each choosing seed.

    Empty where one rate leaves nothing to choose.
    """
    tried: dict[float, tuple[float, ...]] = {}
    for training in _choosing(spec, method):
        if training.name in records:
            nll = records[training.name].nll
            tried[training.learning_rate] = (*tried.get(training.learning_rate, ()), nll)
    return tried


@dataclass(frozen=True)
class Conclusion:
    """What all trainings together have decided."""

    trained: dict[str, tuple[Training, ...]]
    """Of each method that has a result, the trainings at its chosen rate, one for each seed."""

    missing: dict[str, str]
    """Methods without one, and why."""

    @property
    def kept(self) -> tuple[Training, ...]:
        """Trainings whose adapters are asked the tasks' questions."""
        return tuple(training for each in self.trained.values() for training in each)


def conclude(spec: CompareSpec, records: Records) -> Conclusion:
    """Choose the rates, and leave methods out that do not have all their seeds at the chosen one.

    Args:
        spec: What was asked for.
        records: Of all trainings that were due.
    """
    trained: dict[str, tuple[Training, ...]] = {}
    missing: dict[str, str] = {}
    for method in spec.methods:
        if method.is_base:
            continue
        try:
            rate = _chosen_rate(spec, method.name, records)
        except ValueError as error:
            first = _first_failure(_choosing(spec, method.name), records)
            missing[method.name] = f"{error} ({first})" if first else str(error)
            continue
        seeds = tuple(Training(method.name, rate, seed) for seed in spec.seeds)
        failure = _first_failure(seeds, records)
        if failure:
            missing[method.name] = failure
        else:
            trained[method.name] = seeds
    return Conclusion(trained, missing)


def _choosing(spec: CompareSpec, method: str) -> list[Training]:
    return [
        Training(each.method, each.learning_rate, each.seed)
        for each in plan(spec).choosing
        if each.method == method and each.learning_rate is not None
    ]


def _rate_so_far(spec: CompareSpec, method: str, records: Records) -> float | None:
    """The chosen rate; None while trainings that choose it are to come, or if none is left."""
    if any(training.name not in records for training in _choosing(spec, method)):
        return None
    try:
        return _chosen_rate(spec, method, records)
    except ValueError:
        return None


def _chosen_rate(spec: CompareSpec, method: str, records: Records) -> float:
    rates = spec.rates_of(spec.method(method))
    if len(rates) == 1:
        return rates[0]
    return choose_learning_rate(validation_nlls(spec, method, records))


def _first_failure(trainings: Iterable[Training], records: Records) -> str | None:
    for training in trainings:
        failure = records[training.name].failure
        if failure:
            return f"learning rate {training.learning_rate:g}, seed {training.seed}: {failure}"
    return None

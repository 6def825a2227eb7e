"""Which trials end before their last step, as Ray Tune's schedulers."""

from ray import tune
from ray.tune.schedulers import PopulationBasedTraining, TrialScheduler

from jobs.search_space import ChoiceSpec, IntegersSpec, LogUniformSpec, RangeSpec, grid_values
from jobs.search_specs import SearchSpec
from jobs.tuning.sharing import Asha, Median, Unhurried

STEP = "step"
"""Result of a trial that schedulers take for the time: optimizer steps done."""

_LAST_STEP = 10**9
"""Trials know themselves when they are done."""


def make_scheduler(spec: SearchSpec) -> TrialScheduler:
    """The scheduler that a spec names."""
    algorithm, objective = spec.algorithm, spec.objectives[0]
    aim = {"time_attr": STEP, "metric": str(objective.metric), "mode": objective.mode}
    if algorithm.population_interval:
        return PopulationBasedTraining(
            **aim,
            perturbation_interval=algorithm.population_interval,
            hyperparam_mutations={"values": domains(spec)},
        )
    match algorithm.early_stopping:
        case "asha":
            return Asha(
                **aim,
                max_t=_LAST_STEP,
                grace_period=algorithm.grace_steps,
                reduction_factor=algorithm.reduction_factor,
            )
        case "median":
            return Median(**aim, grace_period=algorithm.grace_steps, min_samples_required=3)
        case None:
            return Unhurried()


def domains(spec: SearchSpec) -> dict[str, object]:
    """The searched fields in Ray Tune's words."""
    return {field: domain(values) for field, values in spec.space.items()}


def domain(values: RangeSpec) -> "tune.search.sample.Domain":
    """A range in Ray Tune's words."""
    match values:
        case ChoiceSpec():
            return tune.choice(grid_values(values))
        case IntegersSpec(integers=(low, high)):
            return tune.randint(low, high + 1)
        case LogUniformSpec(loguniform=(least, largest)):
            return tune.loguniform(least, largest)
        case _:
            return tune.uniform(*values.uniform)

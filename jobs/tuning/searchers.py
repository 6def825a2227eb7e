"""What the next trial of a search is: the algorithms, as Ray Tune's searchers.

A suggestion is `{"number": 7, "values": {"adapter.r": 8, …}}`. Numbers count from 1 in the order of
suggestion and survive a restart of the driver, as all of a searcher's state does.
"""

import itertools
import json
import math
import pickle  # nosec B403 # as Ray Tune keeps its own state, in the same folder
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from ray.tune.search import BasicVariantGenerator, SearchAlgorithm, Searcher
from ray.tune.search.optuna import OptunaSearch

from jobs.search_space import (
    ChoiceSpec,
    IntegersSpec,
    LogUniformSpec,
    RangeSpec,
    Value,
    grid_values,
)
from jobs.search_specs import SearchSpec
from jobs.tuning.sharing import SharingLimiter

Suggestion = dict[str, Any]
"""What a trial is started with."""


def make_search_algorithm(spec: SearchSpec, num_at_once: int) -> SearchAlgorithm | Searcher:
    """What Ray Tune takes for the algorithm that a spec names, with a bound on trials at a time."""
    if spec.algorithm.population_interval:  # for which Ray Tune insists on its own
        seed = spec.algorithm.seed
        return BasicVariantGenerator(max_concurrent=num_at_once, random_state=seed)
    return SharingLimiter(make_searcher(spec), num_at_once)


def make_searcher(spec: SearchSpec) -> Searcher:
    """The searcher that a spec names."""
    match spec.algorithm.name:
        case "tpe":
            return TpeSearcher(spec)
        case "random":
            return PointSearcher(random_points(spec))
        case "grid":
            return PointSearcher(grid_points(spec))


class PointSearcher(Searcher):
    """Suggests given points, one after another."""

    def __init__(self, points: Sequence[Mapping[str, Value]]) -> None:
        super().__init__()
        self._points = list(points)
        self._num_suggested = 0

    def suggest(self, trial_id: str) -> Suggestion | str:
        """Return the next point."""
        if self._num_suggested == len(self._points):
            return str(Searcher.FINISHED)
        self._num_suggested += 1
        values = dict(self._points[self._num_suggested - 1])
        return {"number": self._num_suggested, "values": values}

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Learn nothing."""

    def save(self, checkpoint_path: str) -> None:
        """Write how far the points are suggested."""
        Path(checkpoint_path).write_text(str(self._num_suggested))

    def restore(self, checkpoint_path: str) -> None:
        """Read it again."""
        self._num_suggested = int(Path(checkpoint_path).read_text())


class TpeSearcher(OptunaSearch):
    """Optuna's tree-structured Parzen estimator, for one objective or several."""

    def __init__(self, spec: SearchSpec) -> None:
        metrics = [str(objective.metric) for objective in spec.objectives]
        modes = [objective.mode for objective in spec.objectives]
        is_single = len(metrics) == 1
        super().__init__(
            space={field: distribution(values) for field, values in spec.space.items()},
            metric=metrics[0] if is_single else metrics,
            mode=modes[0] if is_single else modes,
            seed=spec.algorithm.seed,
        )
        self._num_suggested = 0

    def suggest(self, trial_id: str) -> Suggestion:
        """Ask Optuna for the next point."""
        suggested = super().suggest(trial_id)
        self._num_suggested += 1
        values = {
            field: json.loads(value)
            if isinstance(self._space[field], CategoricalDistribution)
            else value
            for field, value in suggested.items()
        }
        return {"number": self._num_suggested, "values": values}

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Learn from a trial once it has ended: what comes before is for the scheduler."""

    def save(self, checkpoint_path: str) -> None:
        """Write the study."""
        with Path(checkpoint_path).open("wb") as file:
            pickle.dump(self.__dict__, file)


def distribution(values: RangeSpec) -> BaseDistribution:
    """A range in Optuna's words; choices as JSON, since Optuna wants scalars."""
    match values:
        case ChoiceSpec():
            return CategoricalDistribution([json.dumps(value) for value in grid_values(values)])
        case IntegersSpec(integers=(low, high)):
            return IntDistribution(low, high)
        case LogUniformSpec(loguniform=(least, largest)):
            return FloatDistribution(least, largest, log=True)
        case _:
            return FloatDistribution(*values.uniform)


def grid_points(spec: SearchSpec) -> list[dict[str, Value]]:
    """Every combination, the last field changing fastest."""
    axes = [grid_values(values) for values in spec.space.values()]
    return [dict(zip(spec.space, point, strict=True)) for point in itertools.product(*axes)]


def random_points(spec: SearchSpec) -> list[dict[str, Value]]:
    """Independent draws, as many as the budget has trials."""
    draw = random.Random(spec.algorithm.seed)  # noqa: S311  # nosec B311 # points, no secret
    return [
        {field: _draw(draw, values) for field, values in spec.space.items()}
        for _ in range(spec.num_trials)
    ]


def _draw(source: random.Random, values: RangeSpec) -> Value:
    match values:
        case ChoiceSpec():
            return source.choice(grid_values(values))
        case IntegersSpec(integers=(low, high)):
            return source.randint(low, high)
        case LogUniformSpec(loguniform=(least, largest)):
            drawn = math.exp(source.uniform(math.log(least), math.log(largest)))
            return min(max(drawn, least), largest)
        case _:
            return source.uniform(*values.uniform)

"""Which trials an algorithm suggests."""

import math
from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import Searcher

from jobs.search_specs import SearchSpec
from jobs.tuning.searchers import make_searcher

SPACE = {
    "adapter.curvature": {"loguniform": [0.1, 10]},
    "adapter.r": {"choice": [4, 8, 16, 32]},
    "adapter.target_modules": {"choice": ["all-linear", ["q_proj", "v_proj"]]},
    "adapter.learn_curvature": {"choice": [True, False]},
    "training.weight_decay": {"uniform": [0, 0.1]},
    "training.warmup_steps": {"integers": [0, 3]},
}


def spec_of(name: str, space: dict[str, Any] = SPACE, **changes: Any) -> SearchSpec:
    body = {
        "kind": "search",
        "name": "hunt",
        "base_model": "some/model",
        "data": {"train": "file-0123456789abcdef", "validation_rows": 8},
        "space": space,
        "algorithm": {"name": name, "seed": 3},
        "budget": {"trials": 30},
    }
    return SearchSpec.model_validate(body | changes)


def suggestions(searcher: Searcher, number: int, first: int = 1) -> list[dict[str, Any]]:
    found = []
    for trial in range(first, first + number):
        suggested = searcher.suggest(f"t{trial}")
        assert suggested["number"] == trial
        found.append(suggested["values"])
        loss = abs(math.log(suggested["values"].get("adapter.curvature", 1.0)))
        searcher.on_trial_complete(f"t{trial}", {"eval/loss": loss, "training_iteration": 1})
    return found


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_every_suggestion_is_a_valid_trial_within_the_space_and_follows_from_the_seed(
    name: str,
) -> None:
    spec = spec_of(name)
    first, second = (suggestions(make_searcher(spec), 30) for _ in range(2))
    assert first == second
    for values in first:
        assert values.keys() == SPACE.keys()
        assert 0.1 <= values["adapter.curvature"] <= 10
        assert values["adapter.r"] in {4, 8, 16, 32}
        assert values["adapter.learn_curvature"] in {True, False}
        trial = spec.trial_spec(values)
        assert trial.training.warmup_steps in range(4)
    assert any(values["adapter.target_modules"] == ["q_proj", "v_proj"] for values in first)
    other = spec_of(name, algorithm={"name": name, "seed": 4})
    assert suggestions(make_searcher(other), 30) != first


def test_the_estimator_comes_to_look_where_it_was_good() -> None:
    space = {"adapter.curvature": {"loguniform": [1e-3, 1e3]}}
    found = suggestions(make_searcher(spec_of("tpe", space)), 60)
    distances = [abs(math.log(values["adapter.curvature"])) for values in found]
    assert sum(distances[40:]) < 0.75 * sum(distances[:20])


def test_a_grid_suggests_every_combination_once_and_then_ends() -> None:
    space = {"adapter.r": {"choice": [4, 8]}, "training.warmup_steps": {"integers": [0, 2]}}
    searcher = make_searcher(spec_of("grid", space))
    found = suggestions(searcher, 6)
    assert len({tuple(values.items()) for values in found}) == 6
    assert searcher.suggest("t7") == Searcher.FINISHED


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_a_restored_searcher_goes_on_as_if_it_had_never_stopped(name: str, tmp_path: Path) -> None:
    spec = spec_of(name)
    straight = suggestions(make_searcher(spec), 24)
    before = make_searcher(spec)
    suggestions(before, 15)
    before.save(str(tmp_path / "state"))
    after = make_searcher(spec)
    after.restore(str(tmp_path / "state"))
    assert suggestions(after, 9, first=16) == straight[15:]


def test_several_objectives_are_told_apart() -> None:
    spec = spec_of(
        "tpe",
        {"adapter.r": {"choice": [4, 8]}},
        objectives=[{}, {"metric": "num_trainable_parameters"}],
    )
    searcher = make_searcher(spec)
    for trial in range(3):
        searcher.suggest(f"t{trial}")
        result = {"eval/loss": 1.0, "num_trainable_parameters": 10, "training_iteration": 1}
        searcher.on_trial_complete(f"t{trial}", result)
    assert [trial.values for trial in searcher._ot_study.trials] == [[1.0, 10.0]] * 3

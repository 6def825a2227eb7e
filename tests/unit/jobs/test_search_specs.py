"""What may be searched, and what is refused before anything starts."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from jobs.objective_specs import TaskMeasure
from jobs.search_specs import SearchSpec

FILE_ID = "file-0123456789abcdef"
EXAM_ID = "file-fedcba9876543210"
EXAM = {"benchmark": "gsm8k", "data": EXAM_ID}
ACCURACY = {"metric": "accuracy/gsm8k", "mode": "max"}


def search(**changes: Any) -> SearchSpec:
    body = {
        "kind": "search",
        "name": "hunt",
        "base_model": "some/model",
        "data": {"train": FILE_ID, "validation_rows": 8},
        "space": {"adapter.r": {"choice": [4, 8]}},
    }
    return SearchSpec.model_validate(body | changes)


def test_a_search_of_curvature_and_rank_needs_no_more_than_its_space() -> None:
    spec = search(
        space={
            "adapter.curvature": {"loguniform": [0.1, 10]},
            "adapter.r": {"choice": [4, 8, 16, 32]},
        }
    )
    assert spec.num_trials == 20
    assert [objective.metric for objective in spec.objectives] == ["eval/loss"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"space": {}}, "at least 1 item"),
        ({"space": {"r": {"choice": [4]}}}, "space.r: search fields of adapter or training"),
        ({"space": {"data.seed": {"choice": [4]}}}, "space.data.seed: search fields of adapter"),
        ({"space": {"adapter.rank": {"choice": [4]}}}, "space.adapter.rank: 4 cannot be: Extra"),
        ({"space": {"adapter.r": {"choice": [4, 0]}}}, "space.adapter.r: 0 cannot be"),
        ({"space": {"adapter.r": {"choice": [4, 4]}}}, "space.adapter.r: a value is given twice"),
        ({"space": {"adapter.r": {"integers": [8, 4]}}}, "space.adapter.r: 8 is not less than 4"),
        ({"space": {"adapter.r": {"uniform": [1, 9]}}}, "space.adapter.r: 3.66"),
        ({"space": {"adapter.r": {"normal": [1, 8]}}}, "give one of choice, uniform, loguniform"),
        ({"space": {"adapter.curvature": {"loguniform": [0, 1]}}}, "greater than 0"),
        ({"space": {"adapter.method": {"choice": ["lora"]}}}, "compared, not searched"),
        ({"space": {"training.seed": {"choice": [1, 2]}}}, "use seeds_per_trial"),
        ({"data": {"train": FILE_ID}}, "eval/loss needs held-out rows"),
        ({"objectives": [{"metric": "bleu"}]}, "objectives.0.metric"),
        ({"objectives": [{}, {}]}, "objectives: a metric is given twice"),
        ({"algorithm": {"early_stopping": "asha"}}, "training.eval_every_steps: needed"),
        (
            {"algorithm": {"early_stopping": "asha"}, "resources": {"num_workers": 2}},
            "trials of several workers cannot be stopped early",
        ),
        (
            {
                "algorithm": {"early_stopping": "asha"},
                "objectives": [{}, {"metric": "num_trainable_parameters"}],
            },
            "by a single objective only",
        ),
        (
            {
                "algorithm": {"early_stopping": "median"},
                "objectives": [{"metric": "num_trainable_parameters"}],
            },
            "is not measured on the way",
        ),
        (
            {"algorithm": {"name": "grid"}, "space": {"adapter.alpha": {"uniform": [1, 2]}}},
            "space.adapter.alpha: a grid needs a choice or integers",
        ),
        (
            {
                "algorithm": {"name": "grid"},
                "space": {
                    "adapter.r": {"integers": [1, 40]},
                    "training.warmup_steps": {"integers": [0, 39]},
                },
            },
            "1600 combinations, more than 1000",
        ),
        ({"algorithm": {"population_interval": 5}}, "space.adapter.r: cannot change while"),
        ({"objectives": [ACCURACY]}, "there is no task 'gsm8k' among tasks (none)"),
        ({"tasks": [EXAM]}, "no objective is of 'gsm8k'"),
        ({"tasks": [EXAM, EXAM], "objectives": [ACCURACY]}, "'gsm8k' is given twice"),
        (
            {"tasks": [EXAM], "objectives": [ACCURACY | {"mode": "min"}]},
            "accuracy/gsm8k is better the larger it is; give max",
        ),
        ({"tasks": [EXAM], "objectives": [{"metric": "accuracy/"}]}, "should match pattern"),
        ({"objectives": [{"metric": "loss"}]}, "Input should be 'eval/loss'"),
        (
            {"tasks": [EXAM | {"data": FILE_ID}], "objectives": [ACCURACY]},
            "the rows of 'gsm8k' are those of data.train",
        ),
        (
            {"tasks": [EXAM], "objectives": [ACCURACY], "resources": {"num_workers": 2}},
            "resources.num_workers: tasks are asked by the one process that trained",
        ),
        *(
            (
                {"tasks": [EXAM], "objectives": [ACCURACY], "algorithm": algorithm},
                "accuracy/gsm8k is not measured on the way",
            )
            for algorithm in ({"early_stopping": "asha"}, {"population_interval": 5})
        ),
        ({"budget": {"trials": 0}}, "budget.trials"),
        ({"resources": {"gpus_per_worker": 9}}, "resources.gpus_per_worker"),
    ],
)
def test_what_could_only_fail_is_refused_with_the_name_of_the_field(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError) as refusal:
        search(**changes)
    assert words in str(refusal.value)


def test_a_search_by_tasks_needs_no_held_out_rows_and_looks_for_theirs_in_the_training_rows() -> (
    None
):
    spec = search(
        data={"train": FILE_ID},
        tasks=[EXAM],
        objectives=[ACCURACY, {"metric": "nll/gsm8k"}, {"metric": "num_trainable_parameters"}],
    )
    assert [each.of_task for each in spec.objectives] == [
        (TaskMeasure.ACCURACY, "gsm8k"),
        (TaskMeasure.NLL, "gsm8k"),
        None,
    ]
    assert spec.tasks_judged_by(TaskMeasure.ACCURACY) == ("gsm8k",)
    assert spec.sources() == {"data.train": FILE_ID, "tasks.0.data": EXAM_ID}
    assert spec.trial_spec({}).data.evaluation_sets == {"gsm8k": EXAM_ID}
    assert SearchSpec.model_validate_json(spec.model_dump_json()) == spec


def test_a_trial_is_the_fine_tune_with_its_values_in_place() -> None:
    spec = search(
        space={
            "adapter.target_modules": {"choice": ["all-linear", ["q_proj", "v_proj"]]},
            "training.learning_rate": {"loguniform": [1e-4, 1e-2]},
        },
        training={"max_steps": 100, "seed": 7},
        budget={"steps_per_trial": 20},
    )
    values = {"adapter.target_modules": ["q_proj", "v_proj"], "training.learning_rate": 1e-3}
    trial = spec.trial_spec(values, seed_offset=2)
    assert trial.adapter.target_modules == ("q_proj", "v_proj")
    assert trial.training.learning_rate == 1e-3
    assert (trial.training.max_steps, trial.training.seed) == (20, 9)
    assert spec.trial_spec(values, is_refit=True).training.max_steps == 100


@given(r=st.integers(1, 512), curvature=st.floats(1e-3, 1e4))
def test_a_trial_changes_nothing_but_its_values(r: int, curvature: float) -> None:
    spec = search(space={"adapter.r": {"integers": [1, 512]}})
    trial = spec.trial_spec({"adapter.r": r, "adapter.curvature": curvature})
    same = spec.trial_spec({})
    changed = trial.adapter.model_copy(update={"r": 8, "curvature": 1.0})
    assert trial.model_copy(update={"adapter": changed}) == same


def test_members_of_a_population_are_checkpointed_and_judged_when_they_meet() -> None:
    spec = search(
        space={"training.learning_rate": {"loguniform": [1e-4, 1e-2]}},
        algorithm={"name": "random", "population_interval": 5},
    )
    trial = spec.trial_spec({})
    assert (trial.training.checkpoint_every_steps, trial.training.eval_every_steps) == (5, 5)


def test_a_grid_has_as_many_trials_as_combinations() -> None:
    spec = search(
        algorithm={"name": "grid"},
        space={"adapter.r": {"choice": [4, 8, 16]}, "training.warmup_steps": {"integers": [0, 3]}},
        budget={"trials": 5},
    )
    assert spec.num_trials == 12

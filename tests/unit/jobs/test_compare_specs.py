"""What may be compared, what is refused before anything starts, and what it comes to."""

from typing import Any

import pytest
from pydantic import ValidationError

from jobs.compare_plan import PlannedEvaluation, PlannedTraining, choose_learning_rate, plan
from jobs.compare_specs import CompareSpec
from jobs.method_specs import PresetName, adapter_in_words
from workers.specs import HypLoraSpec, LoraSpec

TRAIN, TEST, OTHER = (f"file-{digit * 16}" for digit in "012")
GSM8K = {"benchmark": "gsm8k", "data": TEST}
OWN = {"name": "wide", "adapter": {"method": "lora", "r": 64}}


def comparison(**changes: Any) -> CompareSpec:
    body = {
        "kind": "compare",
        "name": "fair",
        "base_model": "some/model",
        "data": {"train": TRAIN, "validation_rows": 8},
        "methods": ["base", "lora", "hyplora"],
        "tasks": [GSM8K],
    }
    return CompareSpec.model_validate(body | changes)


def test_a_comparison_needs_no_more_than_methods_and_tasks() -> None:
    spec = comparison()
    assert spec.reference == "lora"
    assert spec.seeds == (0, 1, 2)
    assert [task.name for task in spec.tasks] == ["gsm8k"]
    assert CompareSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize("preset", list(PresetName))
def test_presets_share_what_the_comparison_says_of_adapters(preset: PresetName) -> None:
    spec = comparison(methods=["lora", {"name": "it", "preset": preset}], adapter={"r": 4})
    adapter = spec.method("it").adapter_with(spec.adapter)
    assert (adapter is None) == (preset is PresetName.BASE)
    assert adapter is None or adapter.r == 4


def test_presets_are_the_methods_that_they_are_named_after() -> None:
    spec = comparison(methods=list(PresetName))
    adapters = {name: spec.method(name).adapter_with(spec.adapter) for name in PresetName}
    assert adapters["lora"] == LoraSpec()
    assert adapters["rslora"] == LoraSpec(use_rslora=True)
    assert adapters["dora"] == LoraSpec(use_dora=True)
    assert adapters["hyplora"] == HypLoraSpec()
    assert adapters["hyplora-stereographic"] == HypLoraSpec(
        projection="stereographic", curvature=0.5
    )
    assert adapters["hyplora-learned"] == HypLoraSpec(learn_curvature=True)


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        (None, "none"),
        (LoraSpec(r=4, use_dora=True), "LoRA, r = 4, alpha = 16, use_dora"),
        (
            HypLoraSpec(projection="stereographic", curvature=0.5),
            "HypLoRA, r = 8, alpha = 16, K = 0.5, projection = stereographic",
        ),
    ],
)
def test_an_adapter_is_told_by_what_is_not_as_by_default(
    adapter: LoraSpec | HypLoraSpec | None, words: str
) -> None:
    assert adapter_in_words(adapter) == words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": ["lora"]}, "at least 2 items"),
        ({"methods": ["lora", "vera"]}, "methods.1.preset"),
        ({"methods": ["lora", "lora"]}, "methods: 'lora' is given twice"),
        ({"methods": ["lora", {"name": "x"}]}, "method 'x': give either preset"),
        ({"methods": ["lora", {"adapter": {"r": 4}}]}, "with an adapter of its own needs a name"),
        ({"methods": ["base", "hyplora"]}, "reference: 'lora' is none of the methods (base, hyp"),
        (
            {"methods": ["base", {"name": "b", "preset": "base"}], "reference": "b"},
            "methods: none is trained",
        ),
        (
            {"methods": ["lora", {"preset": "base", "learning_rates": [1e-3]}]},
            "the base model is not trained",
        ),
        (
            {"methods": ["lora", {"preset": "dora", "learning_rates": [1e-3]}]},
            "tries as many learning rates of each, not lora 3, dora 1",
        ),
        ({"learning_rates": [1e-3, 1e-3]}, "learning_rates: 0.001 is given twice"),
        ({"learning_rates": []}, "learning_rates"),
        ({"seeds": [1, 1]}, "seeds: 1 is given twice"),
        ({"seeds": []}, "seeds"),
        ({"tasks": []}, "tasks"),
        ({"tasks": [GSM8K, GSM8K]}, "tasks: 'gsm8k' is given twice"),
        ({"tasks": [{"name": "x", "data": TEST}]}, "task 'x': give either benchmark or scorer"),
        (
            {"tasks": [{"scorer": {"kind": "f1"}, "data": TEST}]},
            "a task with a scorer of its own needs a name",
        ),
        ({"tasks": [GSM8K | {"max_rows": 0}]}, "tasks.0.max_rows"),
        ({"tasks": [GSM8K | {"data": TRAIN}]}, "the rows of 'gsm8k' are those of data.train"),
        (
            {"data": {"train": TRAIN, "validation": TEST}},
            "the rows of 'gsm8k' are those of data.validation",
        ),
        ({"data": {"train": TRAIN}}, "data.validation_rows: the learning rate is chosen by"),
        ({"training": {"learning_rate": 1e-5}}, "training.learning_rate: each method tries"),
        ({"training": {"seed": 7}}, "training.seed: each method is trained with all seeds"),
        ({"adapter": {"curvature": 1.0}}, "adapter.curvature"),
        (
            {"resources": {"num_workers": 3}},
            "method 'lora': training.batch_size: 16 must be a multiple",
        ),
        ({"trials": 3}, "trials"),
    ],
)
def test_what_could_only_fail_or_be_unfair_is_refused_with_the_name_of_the_field(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError) as refusal:
        comparison(**changes)
    assert words in str(refusal.value)


def test_a_method_may_try_other_rates_as_long_as_it_tries_as_many() -> None:
    own = OWN | {"learning_rates": [2e-3, 2e-5, 2e-4]}
    spec = comparison(methods=["lora", own])
    assert spec.rates_of(spec.method("wide")) == (2e-5, 2e-4, 2e-3)
    assert spec.rates_of(spec.method("lora")) == (1e-4, 3e-4, 1e-3)


def test_one_rate_needs_no_validation_rows() -> None:
    spec = comparison(learning_rates=[3e-4], data={"train": TRAIN})
    assert plan(spec).choosing == ()


def test_trainings_differ_in_adapter_rate_and_seed_alone() -> None:
    spec = comparison(training={"num_epochs": 2}, methods=["base", "lora", OWN])
    first = spec.training_spec("lora", 1e-3, 5)
    other = spec.training_spec("wide", 1e-4, 6)
    assert (first.training.learning_rate, first.training.seed) == (1e-3, 5)
    training = {"learning_rate": 1e-3, "seed": 5}
    assert other.training.model_copy(update=training) == first.training
    assert other.model_copy(update={"adapter": first.adapter, "training": first.training}) == first
    with pytest.raises(ValueError, match="the base model is not trained"):
        spec.training_spec("base", 1e-3, 5)


def test_training_rows_are_searched_for_the_rows_of_every_task() -> None:
    data = comparison().training_spec("lora", 1e-3, 0).data
    assert data.evaluation_sets == {"gsm8k": TEST}


def test_the_first_seed_chooses_the_rate_and_is_not_trained_again() -> None:
    found = plan(comparison())
    assert found.choosing[:3] == tuple(
        PlannedTraining("lora", 0, rate) for rate in (1e-4, 3e-4, 1e-3)
    )
    assert found.final[:2] == (PlannedTraining("lora", 1, None), PlannedTraining("lora", 2, None))
    assert found.num_trainings == 2 * (3 + 2)
    assert found.num_evaluations == 1 + 3 + 3
    assert found.evaluations[0] == PlannedEvaluation("base", None, "gsm8k")


def test_all_seeds_choose_the_rate_where_that_is_asked_for() -> None:
    found = plan(comparison(rates_chosen_with="all_seeds"))
    assert (len(found.choosing), found.final) == (2 * 3 * 3, ())


def test_with_one_rate_every_training_is_final() -> None:
    found = plan(comparison(learning_rates=[3e-4]))
    assert found.final[0] == PlannedTraining("lora", 0, 3e-4)
    assert found.num_trainings == 2 * 3


def test_only_adapters_of_the_chosen_rate_are_asked_the_tasks_questions() -> None:
    some = plan(comparison(learning_rates=[1e-4, 3e-4, 1e-3, 3e-3], seeds=[4]))
    assert len([each for each in some.evaluations if each.method == "lora"]) == 1


def test_the_rate_with_the_least_validation_loss_is_chosen() -> None:
    assert choose_learning_rate({1e-4: (1.0, 1.2), 1e-3: (0.9, 1.1)}) == 1e-3
    assert choose_learning_rate({1e-3: (1.0,), 1e-4: (1.0,)}) == 1e-4


def test_a_rate_that_diverged_with_one_seed_is_out() -> None:
    nan, inf = float("nan"), float("inf")
    assert choose_learning_rate({1e-4: (1.0, 1.0), 1e-3: (0.5, nan), 1e-2: (inf, 0.1)}) == 1e-4
    with pytest.raises(ValueError, match="try smaller ones"):
        choose_learning_rate({1e-3: (nan,)})

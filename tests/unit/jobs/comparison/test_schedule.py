"""Which trainings follow from what is on record, and what they decide."""

from typing import Any

from jobs.compare_plan import plan
from jobs.compare_specs import CompareSpec
from jobs.comparison.schedule import conclude, due, validation_nlls
from jobs.comparison.training import Training, TrainingRecord

NLLS = {1e-4: 1.2, 1e-3: 1.0, 1e-2: 1.1}


def comparison(**changes: Any) -> CompareSpec:
    body = {
        "kind": "compare",
        "name": "fair",
        "base_model": "some/model",
        "data": {"train": "file-0000000000000000", "validation_rows": 8},
        "methods": ["base", "lora", "hyplora"],
        "learning_rates": sorted(NLLS),
        "seeds": [7, 8],
        "tasks": [{"benchmark": "gsm8k", "data": "file-1111111111111111"}],
    }
    return CompareSpec.model_validate(body | changes)


def record_of(training: Training) -> TrainingRecord:
    return TrainingRecord(checkpoint="c", eval_loss=NLLS[training.learning_rate], steps=3)


def carried_out(spec: CompareSpec, **failures: str) -> dict[str, TrainingRecord]:
    """What is on record in the end, where some trainings failed."""
    records: dict[str, TrainingRecord] = {}
    while waiting := due(spec, records):
        for training in waiting:
            failed = failures.get(training.name.replace("-", "_").replace(".", "_"))
            records[training.name] = (
                TrainingRecord(failure=failed) if failed else record_of(training)
            )
    return records


def test_the_first_seed_tries_all_rates_before_others_are_trained() -> None:
    first = due(comparison(), {})
    assert [(each.method, each.learning_rate) for each in first] == [
        (method, rate) for method in ("lora", "hyplora") for rate in sorted(NLLS)
    ]
    assert {each.seed for each in first} == {7}


def test_a_method_goes_on_with_the_best_rate_while_others_still_choose() -> None:
    spec = comparison()
    records = {each.name: record_of(each) for each in due(spec, {}) if each.method == "hyplora"}
    after = due(spec, records)
    assert Training("hyplora", 1e-3, 8) in after
    assert [each for each in after if each.method == "lora"] == due(spec, {})[:3]


def test_what_is_on_record_is_never_due_again() -> None:
    spec = comparison()
    records = carried_out(spec)
    assert len(records) == plan(spec).num_trainings
    assert due(spec, records) == []
    lost = records.popitem()[0]
    assert [each.name for each in due(spec, records)] == [lost]


def test_a_single_rate_leaves_nothing_to_choose() -> None:
    spec = comparison(learning_rates=[1e-3])
    assert [each.seed for each in due(spec, {})] == [7, 8, 7, 8]
    records = carried_out(spec)
    assert validation_nlls(spec, "lora", records) == {}
    assert conclude(spec, records).trained["lora"] == (
        Training("lora", 1e-3, 7),
        Training("lora", 1e-3, 8),
    )


def test_with_all_seeds_the_mean_chooses_and_nothing_is_left_to_train() -> None:
    spec = comparison(rates_chosen_with="all_seeds")
    assert len(due(spec, {})) == plan(spec).num_trainings == 12
    records = carried_out(spec)
    assert validation_nlls(spec, "lora", records) == {r: (n, n) for r, n in NLLS.items()}


def test_a_rate_that_diverged_is_not_chosen() -> None:
    spec = comparison()
    records = carried_out(spec, lora_lr0_001_seed7="loss-not-finite: at step 2")
    assert conclude(spec, records).trained["lora"][0].learning_rate == 1e-2
    assert conclude(spec, records).missing == {}


def test_a_method_of_which_every_rate_failed_is_missing_with_the_reason() -> None:
    failures = {f"lora_lr{rate}_seed7": "loss-not-finite: at step 2" for rate in NLLS}
    spec = comparison()
    records = carried_out(spec, **{name.replace(".", "_"): why for name, why in failures.items()})
    concluded = conclude(spec, records)
    assert "lora" not in concluded.trained
    assert "learning rate 0.0001, seed 7: loss-not-finite" in concluded.missing["lora"]
    assert {each.method for each in concluded.kept} == {"hyplora"}


def test_a_method_that_loses_a_seed_is_missing_and_not_judged_by_the_others() -> None:
    spec = comparison()
    records = carried_out(spec, hyplora_lr0_001_seed8="loss-not-finite: at step 9")
    concluded = conclude(spec, records)
    assert concluded.missing == {
        "hyplora": "learning rate 0.001, seed 8: loss-not-finite: at step 9"
    }


def test_names_of_trainings_are_their_own() -> None:
    close = [Training("lora", rate, 0).name for rate in (1e-4, 1.0000001e-4, 1e-05)]
    assert len(set(close)) == 3
    assert close[0] == "lora-lr0.0001-seed0"


def test_a_record_is_read_as_it_was_written() -> None:
    record = TrainingRecord(checkpoint="c", eval_loss=1.25, steps=3, seconds=0.5)
    assert TrainingRecord.model_validate_json(record.model_dump_json()) == record

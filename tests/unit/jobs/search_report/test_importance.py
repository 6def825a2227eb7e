"""How much each field matters: what is certain is found, and what is noise is not."""

import dataclasses

import pytest

from jobs.objective_specs import ObjectiveSpec
from jobs.search_report.importance import FEWEST_TRIALS, Importance, importance
from jobs.search_report.trial_table import TrialRecord
from jobs.search_space import Value
from jobs.tickets import TrialState
from tests.unit.jobs.search_report.trials import (
    CURVATURE,
    LEARNED,
    LEARNING_RATE,
    LOSS,
    RANK,
    SPACE,
    trials,
)

AIM = ObjectiveSpec(metric=LOSS)
FIELDS = list(SPACE)


def shares(found: Importance) -> dict[str, tuple[float, float, float]]:
    return {share.field: (share.low, share.estimate, share.high) for share in found.fields}


def with_values(trial: TrialRecord, **values: Value) -> TrialRecord:
    return dataclasses.replace(trial, values=dict(trial.values) | values)


@pytest.mark.parametrize("field", [RANK, LEARNED])
def test_a_field_that_alone_decides_gets_nearly_everything(field: str) -> None:
    found = importance(trials(40, lambda values: float(values[field]), noise=0.0), FIELDS, AIM)  # type: ignore[arg-type]
    low, estimate, _ = shares(found).pop(field)
    assert found.fields[0].field == field
    assert estimate > 0.9
    assert low > 0.7
    others = [share for share in found.fields if share.field != field]
    assert all(share.estimate < 0.05 and share.low == 0 for share in others)


def test_a_field_without_effect_has_an_interval_that_reaches_zero() -> None:
    found = shares(importance(trials(40), FIELDS, AIM))
    assert found[LEARNED][0] == 0
    assert found[LEARNING_RATE][0] > 0.2


def test_noise_alone_is_shared_out_to_no_field() -> None:
    found = importance(trials(40, lambda _: 1.0, noise=1.0), FIELDS, AIM)
    assert found.explained is not None
    assert found.explained < 0.2
    assert all(low == 0 for low, _, _ in shares(found).values())


def test_the_difference_of_two_fields_has_an_interval_of_its_own() -> None:
    found = importance(trials(60), FIELDS, AIM)
    first = next(
        each for each in found.differences if (each.field, each.other) == (LEARNING_RATE, LEARNED)
    )
    assert 0 < first.low <= first.estimate <= first.high


def test_the_same_trials_and_seed_give_the_same_numbers() -> None:
    first, again, other = (importance(trials(12), FIELDS, AIM, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_too_few_trials_give_a_reason_and_no_numbers() -> None:
    some = trials(FEWEST_TRIALS - 1) + trials(50, stopped_part=0.5, failed_part=0.5)
    found = importance(some, FIELDS, AIM)
    assert (found.fields, found.explained, found.num_trials) == ((), None, FEWEST_TRIALS - 1)
    assert found.reason is not None
    assert "too few" in found.reason


def test_trials_that_were_stopped_early_do_not_count() -> None:
    done = trials(20)
    early = [
        dataclasses.replace(trial, state=TrialState.STOPPED, objectives={LOSS: 99.0})
        for trial in trials(20, seed=1)
    ]
    assert importance(done + early, FIELDS, AIM) == importance(done, FIELDS, AIM)


def test_a_field_with_a_single_value_is_left_out() -> None:
    fixed = [with_values(trial, **{RANK: 8}) for trial in trials(12)]
    assert RANK not in shares(importance(fixed, FIELDS, AIM))


def test_an_objective_that_never_varies_gives_a_reason() -> None:
    found = importance(trials(12, lambda _: 1.0, noise=0.0), FIELDS, AIM)
    assert found.reason == "eval/loss is the same in all trials"


def test_lists_of_names_and_nulls_are_categories() -> None:
    kinds: list[Value] = [["q_proj"], ["q_proj", "v_proj"], None, "all-linear"]
    some = [
        dataclasses.replace(
            with_values(trial, **{"adapter.target_modules": kinds[i % 4]}),
            objectives={LOSS: float(i % 4 == 1)},
        )
        for i, trial in enumerate(trials(40))
    ]
    found = shares(importance(some, [*FIELDS, "adapter.target_modules"], AIM))
    assert found["adapter.target_modules"][1] > 0.9


def test_one_diverged_trial_does_not_hide_the_others() -> None:
    some = trials(40)
    some[0] = dataclasses.replace(some[0], objectives={LOSS: 1e6})
    found = importance(some, FIELDS, AIM)
    assert found.num_clipped == 1
    assert shares(found)[LEARNING_RATE][1] > 0.3
    assert CURVATURE in shares(found)

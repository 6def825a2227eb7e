"""`hyplora trials` and what else the command line shows of a search."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from service.answers import JobRead
from service.cli.trial_views import trials_table, value_text
from service.trial_answers import TrialRead
from tests.unit.service.cli.conftest import JOB_ID, Outcome, ScriptedService, job, problem, trial
from workers.specs import HypLoraSpec, LoraSpec, TrainingSpec

Run = Callable[..., Outcome]
JOB_PATH = f"/v1/jobs/{JOB_ID}"
SPEC = {
    "kind": "search",
    "space": {"adapter.curvature": {"loguniform": [0.1, 10]}, "adapter.r": {"choice": [4, 8]}},
    "objectives": [{"metric": "eval/loss", "mode": "min"}],
}
SEARCH = {
    "num_trials": 20,
    "num_ended": 2,
    "best_trials": ["trial-0001"],
    "best": {"eval/loss": 0.4321},
}
TRIALS = [
    trial(0, "stopped", objectives={"eval/loss": 0.7}, reason="[b]worse[/b] at step 40", step=40),
    trial(
        1,
        objectives={"eval/loss": 0.4321},
        errors={"eval/loss": 0.0123},
        is_best=True,
        step=100,
        total_steps=100,
        seconds=93.2,
    ),
    trial(2, "running", metrics={"eval/loss": 0.9}, cancel_requested=True, step=3),
]


def search(status: str = "running", **fields: Any) -> dict[str, Any]:
    return job(status, kind="search", spec=SPEC, search=SEARCH, **fields)


@pytest.fixture
def trials(service: ScriptedService) -> ScriptedService:
    service.on("GET", JOB_PATH, search(progress={"step": 2, "total_steps": 20}))
    service.on("GET", f"{JOB_PATH}/trials", {"data": TRIALS, "has_more": False})
    return service


def test_trials_are_listed_one_a_line_with_values_objectives_and_reasons(
    hyplora: Run, trials: ScriptedService
) -> None:
    outcome = hyplora("trials", JOB_ID, "--sort=-adapter.r", "--state", "stopped")

    query = {"sort": "-adapter.r", "state": "stopped", "limit": "1000"}
    assert dict(trials.requests[0].url.params) == query
    header, stopped, best, running = outcome.stdout.splitlines()
    names = ["trial", "state", "eval/loss", "curvature", "r", "steps", "time", "reason"]
    assert header.split() == names
    assert "[b]worse[/b] at step 40" in stopped, "reasons are no markup"
    expected = "★ trial-0001 completed 0.4321 ± 0.012 2.5 8 100/100 0:01:33"
    assert " ".join(best.split()) == expected
    assert " ".join(running.split()) == "trial-0002 cancelling 0.9 2.5 8 3/?"
    assert outcome.stderr == "2/20 trials  best eval/loss 0.4321  trial-0001\n"


def test_trials_as_json_are_those_of_the_service(hyplora: Run, trials: ScriptedService) -> None:
    listed = json.loads(hyplora("trials", JOB_ID, "--json").stdout)

    assert [item["id"] for item in listed["data"]] == ["trial-0000", "trial-0001", "trial-0002"]
    assert listed["data"][1]["errors"] == {"eval/loss": 0.0123}


def test_a_search_without_trials_is_an_answer(hyplora: Run, service: ScriptedService) -> None:
    service.on("GET", JOB_PATH, job("queued", kind="search", spec=SPEC))
    service.on("GET", f"{JOB_PATH}/trials", {"data": [], "has_more": False})

    assert hyplora("trials", JOB_ID) == Outcome(0, "", "no trials\n")


def test_a_sort_key_that_is_not_there_is_refused_with_what_there_is(
    hyplora: Run, service: ScriptedService
) -> None:
    fault = {"field": "sort", "value": "loss", "message": "give one of number, eval/loss"}
    refusal = problem(422, "request-invalid", "sort: 'loss' is nothing to sort by", [fault])
    service.on("GET", f"{JOB_PATH}/trials", refusal)

    outcome = hyplora("trials", JOB_ID, "--sort", "loss")

    assert outcome.exit_code == 1
    assert "sort: give one of number, eval/loss" in outcome.stderr


def test_one_trial_is_cancelled_and_its_search_goes_on(
    hyplora: Run, trials: ScriptedService
) -> None:
    cancelled = trial(7, "running", cancel_requested=True)
    trials.on("POST", f"{JOB_PATH}/trials/trial-0007/cancel", cancelled)

    outcome = hyplora("cancel", JOB_ID, "--trial", "trial-0007")

    assert (outcome.exit_code, outcome.stdout) == (0, "trial-0007 cancelling\n")
    assert "the search goes on" in outcome.stderr
    assert trials.bodies("POST", f"{JOB_PATH}/cancel") == []


def test_cancelling_one_trial_does_not_wait_for_the_job(
    hyplora: Run, service: ScriptedService
) -> None:
    assert hyplora("cancel", JOB_ID, "--trial", "trial-0007", "--wait").exit_code == 2
    assert not service.requests


def test_the_progress_of_a_search_is_counted_in_trials(
    hyplora: Run, trials: ScriptedService
) -> None:
    running = search(progress={"step": 2, "total_steps": 20})
    trials.on("GET", "/v1/jobs", {"data": [running], "has_more": False})

    assert "2/20 trials" in hyplora("jobs").stdout
    shown = hyplora("show", JOB_ID).stdout
    assert "progress       2/20 trials  best eval/loss 0.4321  trial-0001\n" in shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.1235"),
        (8, "8"),
        (True, "true"),
        (None, "null"),
        ("8bit", "8bit"),
        (["q_proj", "v_proj"], "[q_proj, v_proj]"),
    ],
)
def test_values_read_as_in_a_spec(value: Any, text: str) -> None:
    assert value_text(value) == text


def test_a_trial_takes_one_line_of_a_narrow_terminal() -> None:
    screen = io.StringIO()
    trials = [TrialRead.model_validate(item) for item in TRIALS]

    table = trials_table(JobRead.model_validate(search()), trials)
    Console(file=screen, width=80, markup=False).print(table)

    lines = screen.getvalue().splitlines()
    assert len(lines) == 1 + len(trials)
    assert all("trial-000" in line for line in lines[1:])
    assert "★" in lines[2]
    assert "cancelling" in lines[3]


def test_no_field_of_the_adapter_is_one_of_the_training() -> None:
    training = set(TrainingSpec.model_fields)
    for adapter in (HypLoraSpec, LoraSpec):
        assert not training & set(adapter.model_fields)

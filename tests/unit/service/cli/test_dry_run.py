"""`hyplora submit --dry-run`: what is shown, and what the exit code says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.answers import DryRunRead
from service.cli.dry_run_view import size_text
from tests.unit.service.cli.conftest import Outcome, ScriptedService, file, problem

Run = Callable[..., Outcome]
MIB = 2**20
FOUND: dict[str, Any] = {
    "steps": 1200,
    "num_train_rows": 6000,
    "num_held_out_rows": 40,
    "num_tokens": 1234567,
    "longest_row": 412,
    "num_trainable_parameters": 10000,
    "num_parameters": 1000000,
    "memory": {
        "base_model": 100 * MIB,
        "adapter": 2 * MIB,
        "optimizer": 2 * MIB,
        "activations": 300 * MIB,
        "logits": 20 * MIB,
        "framework": 600 * MIB,
        "total": 1024 * MIB,
    },
    "memory_fits": True,
    "memory_reason": None,
    "placement": {"possible": True, "reason": None, "device": "cpu"},
}
NOWHERE = {"possible": False, "reason": "1 worker(s) need 9 CPU together", "device": "cpu"}


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    path = tmp_path / "job.yaml"
    path.write_text("kind: finetune\nname: n\nadapter:\n  r: 0\ndata:\n  train: rows.jsonl\n")
    return path


@pytest.fixture(autouse=True)
def _uploads(service: ScriptedService) -> None:
    service.on("POST", "/v1/files", file())


def lines_of(text: str) -> dict[str, str]:
    """Values by label."""
    pairs = (line.strip().split("  ", 1) for line in text.splitlines() if line.strip())
    return {label: value.strip() for label, value in pairs}


def test_a_dry_run_uploads_the_rows_and_shows_what_the_job_would_come_to(
    hyplora: Run, service: ScriptedService, spec: Path
) -> None:
    service.on("POST", "/v1/jobs", FOUND)
    outcome = hyplora("submit", spec, "--dry-run", "--set", "adapter.r=16")
    assert outcome.exit_code == 0
    assert service.requests[-1].url.query == b"dry_run=true"
    (body,) = service.bodies("POST", "/v1/jobs")
    assert body["data"]["train"] == file()["id"]
    assert body["adapter"]["r"] == 16
    assert lines_of(outcome.stdout) == {
        "rows": "6,000, and 40 held out",
        "tokens": "1,234,567; the longest row has 412",
        "steps": "1,200",
        "trainable": "10,000 of 1,000,000 parameters (1.000%)",
        "memory": "about 1 GiB for each worker at its peak",
        "base model": "100 MiB",
        "adapter": "2 MiB",
        "optimizer": "2 MiB",
        "activations": "300 MiB",
        "logits": "20 MiB",
        "framework": "600 MiB",
        "memory is there": "yes",
        "can be placed": "yes: on the CPUs of the cluster",
    }


def test_a_job_that_can_never_be_placed_exits_with_one_and_says_why(
    hyplora: Run, service: ScriptedService, spec: Path
) -> None:
    unknown = {"memory": None, "memory_fits": None, "memory_reason": "cannot be estimated"}
    service.on("POST", "/v1/jobs", FOUND | unknown | {"placement": NOWHERE})
    outcome = hyplora("submit", spec, "--dry-run")
    assert outcome.exit_code == 1
    shown = lines_of(outcome.stdout)
    assert shown["can be placed"] == "no: 1 worker(s) need 9 CPU together"
    assert shown["memory"] == "unknown"
    assert shown["memory is there"] == "unknown: cannot be estimated"


@pytest.mark.parametrize(("placement", "code"), [(FOUND["placement"], 0), (NOWHERE, 1)])
def test_a_dry_run_for_programs_is_json(
    placement: object, code: int, hyplora: Run, service: ScriptedService, spec: Path
) -> None:
    service.on("POST", "/v1/jobs", FOUND | {"placement": placement})
    outcome = hyplora("submit", spec, "--dry-run", "--json")
    assert outcome.exit_code == code
    expected = DryRunRead.model_validate(FOUND | {"placement": placement})
    assert DryRunRead.model_validate(json.loads(outcome.stdout)) == expected


def test_what_would_fail_the_job_is_one_sentence(
    hyplora: Run, service: ScriptedService, spec: Path
) -> None:
    service.on("POST", "/v1/jobs", problem(422, "row-too-long", "line 1 has 900 tokens"))
    outcome = hyplora("submit", spec, "--dry-run")
    assert (outcome.exit_code, outcome.stdout) == (1, "")
    assert outcome.stderr.endswith("error: line 1 has 900 tokens\n")


@pytest.mark.parametrize("options", [("--dry-run", "--follow"), ("--json",)])
def test_options_that_contradict_each_other_send_nothing(
    options: tuple[str, ...], hyplora: Run, service: ScriptedService, spec: Path
) -> None:
    assert hyplora("submit", spec, *options).exit_code == 2
    assert not service.requests


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "0.977 KiB"), (600 * MIB, "600 MiB"), (3 * 2**40, "3 TiB")],
)
def test_sizes_have_three_digits(num_bytes: int, text: str) -> None:
    assert size_text(num_bytes) == text


def test_a_dry_run_of_a_search_shows_its_trials_and_what_one_of_them_would_come_to(
    hyplora: Run, service: ScriptedService, spec: Path
) -> None:
    spec.write_text(
        "kind: search\nname: n\nbase_model: tiny\n"
        "data: {train: rows.jsonl, validation_rows: 40}\n"
        "space: {adapter.r: {choice: [4, 8]}, adapter.curvature: {loguniform: [0.1, 10]}}\n"
        "budget: {trials: 30, steps_per_trial: 200}\nseeds_per_trial: 3\n"
    )
    service.on("POST", "/v1/jobs", FOUND)

    outcome = hyplora("submit", spec, "--dry-run")

    lines = lines_of(outcome.stdout)
    assert outcome.exit_code == 0
    assert lines["trials"] == "up to 30, each by up to 3 seeds"
    assert lines["steps a trial"] == "at most 200"
    assert lines["one trial"].startswith("all that follows")
    assert lines["rows"] == "6,000, and 40 held out"


def asked_only(**fields: Any) -> dict[str, Any]:
    """What is found where nothing is trained."""
    trained = ("steps", "num_train_rows", "num_held_out_rows", "num_trainable_parameters", "memory")
    unknown = {"memory_fits": None, "memory_reason": "memory is estimated for trainings alone"}
    return FOUND | dict.fromkeys(trained) | unknown | fields


def test_a_dry_run_of_an_evaluation_shows_what_is_asked(
    hyplora: Run, service: ScriptedService, spec: Path
) -> None:
    service.on("POST", "/v1/jobs", asked_only(num_evaluations=6, num_questions=1319))
    spec.write_text("kind: evaluate\ntasks: [{benchmark: gsm8k, data: rows.jsonl}]\n")

    assert lines_of(hyplora("submit", spec, "--dry-run").stdout) == {
        "evaluations": "6",
        "questions": "1,319",
        "tokens": "1,234,567; the longest prompt has 412",
        "parameters": "1,000,000",
        "memory": "unknown",
        "memory is there": "unknown: memory is estimated for trainings alone",
        "can be placed": "yes: on the CPUs of the cluster",
    }


def test_a_dry_run_of_a_comparison_shows_its_trainings_and_one_of_them(
    hyplora: Run, service: ScriptedService, spec: Path
) -> None:
    counts = {"num_trainings": 12, "num_evaluations": 9, "num_questions": 80}
    service.on("POST", "/v1/jobs", FOUND | counts)

    lines = lines_of(hyplora("submit", spec, "--dry-run").stdout)

    assert (lines["trainings"], lines["evaluations"], lines["questions"]) == ("12", "9", "80")
    assert lines["one training"].startswith("all that follows")
    assert lines["steps"] == "1,200"

"""The commands as a user meets them: output, exit codes and errors."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.cli.app import app
from tests.unit.service.cli.conftest import (
    JOB_ID,
    TOKEN,
    URL,
    Outcome,
    ScriptedService,
    event_stream,
    file,
    job,
    problem,
    status_event,
    stream_of,
)

Run = Callable[..., Outcome]
JOB_PATH = f"/v1/jobs/{JOB_ID}"
EVENTS_PATH = f"{JOB_PATH}/events"
VERSION = {"name": "arithmetic", "version": "3", "alias": "champion", "uri": "models:/arithmetic/3"}
FAILURE = {"code": "loss-not-finite", "message": "lower the rate", "log_tail": "step 3\nnan\n"}


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A spec file with its rows beside it."""
    (tmp_path / "rows.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    path = tmp_path / "job.yaml"
    path.write_text("kind: finetune\nname: n\nadapter:\n  r: 0\ndata:\n  train: rows.jsonl\n")
    return path


def end_with(service: ScriptedService, status: str, **fields: Any) -> None:
    """Let the job run and end."""
    stream = stream_of(status_event(1, "running"), status_event(2, status))
    service.on("GET", EVENTS_PATH, event_stream(stream))
    service.on("GET", JOB_PATH, job(status, **fields))


def test_submit_uploads_the_rows_and_prints_only_the_id(
    hyplora: Run, service: ScriptedService, spec: Path
) -> None:
    service.on("POST", "/v1/files", file())
    service.on("POST", "/v1/jobs", job())
    outcome = hyplora("submit", spec, "--set", "adapter.r=16")
    assert (outcome.exit_code, outcome.stdout) == (0, f"{JOB_ID}\n")
    assert "1,234 rows" in outcome.stderr
    (body,) = service.bodies("POST", "/v1/jobs")
    assert body["data"] == {"train": file()["id"]}
    assert body["adapter"] == {"r": 16}


def test_a_refused_spec_names_the_lines_of_the_users_file(
    hyplora: Run, service: ScriptedService, spec: Path
) -> None:
    faults = [
        {"field": "adapter.r", "value": 0, "message": "must be at least 1"},
        {"field": "training.steps", "value": 5, "message": "unknown field"},
    ]
    service.on("POST", "/v1/files", file())
    service.on("POST", "/v1/jobs", problem(422, "spec-invalid", "2 fields are invalid", faults))
    outcome = hyplora("submit", spec, "--set", "training.steps=5")
    assert outcome.exit_code == 1
    assert outcome.stderr.splitlines()[1:] == [
        "error: 2 fields are invalid",
        f"  {spec}:4: adapter.r: must be at least 1 (given: 0)",
        "  --set training.steps: training.steps: unknown field (given: 5)",
    ]


def test_a_refused_upload_names_the_line_of_the_rows(
    hyplora: Run, service: ScriptedService, spec: Path
) -> None:
    fault = {"field": "output", "message": "is missing", "line": 7}
    service.on("POST", "/v1/files", problem(422, "dataset-invalid", "a row is invalid", [fault]))
    outcome = hyplora("submit", spec)
    rows = spec.parent / "rows.jsonl"
    assert outcome.stderr == (f"error: {rows}: a row is invalid\n  {rows}:7: output: is missing\n")
    assert not service.bodies("POST", "/v1/jobs")


def test_a_broken_spec_file_reaches_no_service(
    hyplora: Run, service: ScriptedService, spec: Path
) -> None:
    spec.write_text("kind: finetune\nname: [n\n")
    outcome = hyplora("submit", spec)
    assert outcome.exit_code == 1
    assert outcome.stderr.startswith(f"error: {spec}:")
    assert outcome.stderr.count("\n") == 1
    assert not service.requests


@pytest.mark.parametrize(
    ("status", "exit_code"), [("succeeded", 0), ("failed", 1), ("cancelled", 3)]
)
def test_following_exits_as_the_job_ended(
    status: str, exit_code: int, hyplora: Run, service: ScriptedService
) -> None:
    end_with(service, status)
    outcome = hyplora("follow", JOB_ID)
    assert outcome.exit_code == exit_code
    assert outcome.stdout.splitlines()[-1].endswith(status)


def test_submit_can_follow_what_it_submitted(
    hyplora: Run, service: ScriptedService, spec: Path
) -> None:
    service.on("POST", "/v1/files", file())
    service.on("POST", "/v1/jobs", job())
    end_with(service, "succeeded", model_version=VERSION)
    outcome = hyplora("submit", spec, "--follow")
    assert outcome.exit_code == 0
    assert outcome.stdout.startswith(f"{JOB_ID}\n")
    assert outcome.stdout.endswith("fetch it: hyplora pull arithmetic@champion DIR\n")


def test_a_failed_job_shows_code_sentence_and_log(hyplora: Run, service: ScriptedService) -> None:
    end_with(service, "failed", failure=FAILURE)
    outcome = hyplora("follow", JOB_ID)
    assert "end of the log:\nstep 3\nnan\n" in outcome.stderr
    assert outcome.stderr.endswith(f"{JOB_ID} failed: loss-not-finite: lower the rate\n")


def test_ctrl_c_leaves_the_job_as_it_is(hyplora: Run, service: ScriptedService) -> None:
    def interrupted() -> Iterator[bytes]:
        yield stream_of(status_event(1, "running"))
        raise KeyboardInterrupt

    service.on("GET", JOB_PATH, job("running"))
    service.on("GET", EVENTS_PATH, event_stream(interrupted()))
    outcome = hyplora("follow", JOB_ID)
    assert outcome.exit_code == 130
    assert f"hyplora follow {JOB_ID}" in outcome.stderr
    assert f"hyplora pause {JOB_ID}" in outcome.stderr
    assert f"hyplora cancel {JOB_ID}" in outcome.stderr
    assert {request.method for request in service.requests} == {"GET"}


def test_jobs_are_listed_one_a_line(hyplora: Run, service: ScriptedService) -> None:
    running = job("running", progress={"step": 3, "total_steps": 9, "loss": 1.5})
    done = job("succeeded", name="[bold]x[/bold]", model_version=VERSION)
    service.on("GET", "/v1/jobs", {"data": [running, done], "has_more": True})
    outcome = hyplora("jobs", "--status", "running", "--limit", "2")
    assert dict(service.requests[0].url.params) == {"limit": "2", "status": "running"}
    lines = outcome.stdout.splitlines()
    assert len(lines) == 3
    assert "running" in lines[1]
    assert "3/9" in lines[1]
    assert "[bold]x[/bold]" in lines[2], "names are no markup"
    assert "arithmetic/3" in lines[2]
    assert "raise --limit" in outcome.stderr


def test_a_list_tells_what_each_kind_of_job_counts(hyplora: Run, service: ScriptedService) -> None:
    progress = {"step": 37, "total_steps": 120}
    kinds = ["finetune", "search", "evaluate", "compare", "analyze"]
    jobs = [job("running", kind=kind, progress=progress) for kind in kinds]
    service.on("GET", "/v1/jobs", {"data": jobs, "has_more": False})
    _, *lines = hyplora("jobs").stdout.splitlines()
    counted = ["", "trials", "rows", "trainings and evaluations", "parts"]
    for line, word in zip(lines, counted, strict=True):
        assert f"37/120 {word}".strip() in line


def test_what_a_job_found_is_shown_with_where_the_report_is(
    hyplora: Run, service: ScriptedService
) -> None:
    links = {"report": f"{JOB_PATH}/report"}
    end_with(service, "succeeded", kind="evaluate", summary="tuned wins", links=links)
    assert "result         tuned wins\n" in hyplora("show", JOB_ID).stdout
    assert f"hyplora report {JOB_ID}" in hyplora("follow", JOB_ID).stderr


def test_rows_that_two_fields_name_are_uploaded_once(
    hyplora: Run, service: ScriptedService, tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"instruction": "a", "answer": 1}\n')
    path = tmp_path / "exam.yaml"
    path.write_text("kind: evaluate\ntasks:\n- {data: rows.jsonl, shots: rows.jsonl}\n")
    service.on("POST", "/v1/files", file())
    service.on("POST", "/v1/jobs", job(kind="evaluate"))

    hyplora("submit", path)

    assert [request.url.path for request in service.requests] == ["/v1/files", "/v1/jobs"]
    (body,) = service.bodies("POST", "/v1/jobs")
    assert body["tasks"] == [{"data": file()["id"], "shots": file()["id"]}]


@pytest.mark.parametrize("arguments", [("--status", "done"), ("--limit", "0"), ("--limit", "201")])
def test_a_filter_that_cannot_be_is_refused(
    arguments: tuple[str, str], hyplora: Run, service: ScriptedService
) -> None:
    assert hyplora("jobs", *arguments).exit_code == 2
    assert not service.requests


def test_no_jobs_is_an_answer(hyplora: Run, service: ScriptedService) -> None:
    service.on("GET", "/v1/jobs", {"data": [], "has_more": False})
    assert hyplora("jobs") == Outcome(0, "", "no jobs\n")


def test_json_is_machine_readable(hyplora: Run, service: ScriptedService) -> None:
    links = {"self": JOB_PATH, "events": EVENTS_PATH, "logs": f"{JOB_PATH}/logs"}
    service.on("GET", "/v1/jobs", {"data": [job(links=links)], "has_more": False})
    service.on("GET", JOB_PATH, job(links=links))
    listed = json.loads(hyplora("jobs", "--json").stdout)
    shown = json.loads(hyplora("show", JOB_ID, "--json").stdout)
    assert listed == {"data": [shown], "has_more": False}
    assert shown["links"]["self"] == JOB_PATH


def test_show_tells_everything_about_a_job(hyplora: Run, service: ScriptedService) -> None:
    times = {"started_at": "2026-01-02T03:04:05Z", "finished_at": "2026-01-02T03:05:15Z"}
    links = {"mlflow_run": f"http://127.0.0.1:5000/#/experiments/1/runs/{'0' * 32}?{'x' * 200}"}
    fields = {"attempt": 2, "failure": FAILURE, "model_version": VERSION, "links": links}
    progress = {"step": 3, "loss": 1.5, "checkpoint_step": 2}
    fields["data_summary"] = "9,241 rows, 3 questions of evaluation set svamp are in them"
    service.on("GET", JOB_PATH, job("failed", progress=progress, **times, **fields))
    shown = hyplora("show", JOB_ID).stdout
    for text in ("0:01:10", "loss-not-finite: lower the rate", "arithmetic@champion", "1.5"):
        assert text in shown
    assert "checkpoint     step 2\n" in shown
    assert f"data           {fields['data_summary']}\n" in shown
    assert f"MLflow run     {links['mlflow_run']}\n" in shown, "links stay whole"
    assert "kind: finetune" in shown


def test_logs_are_printed_as_they_are(hyplora: Run, service: ScriptedService) -> None:
    service.on("GET", f"{JOB_PATH}/logs", httpx.Response(200, text="[red]a[/red]\nno end"))
    assert hyplora("logs", JOB_ID) == Outcome(0, "[red]a[/red]\nno end", "")
    hyplora("logs", "--attempt", "2", JOB_ID)
    assert service.requests[-1].url.params["attempt"] == "2"
    hyplora("logs", "-f", JOB_ID)
    assert service.requests[-1].url.params["follow"] == "true"


def test_pause_says_where_the_job_stands_and_how_to_resume_it(
    hyplora: Run, service: ScriptedService
) -> None:
    service.on("POST", f"{JOB_PATH}/pause", job("pausing"))
    note = f"resume it: hyplora resume {JOB_ID}\n"
    assert hyplora("pause", JOB_ID) == Outcome(0, f"{JOB_ID} pausing\n", note)


def wait_for_pause(hyplora: Run, service: ScriptedService, *history: str) -> Outcome:
    """Pause a job that was paused before; it goes through a history from then on."""
    statuses = ["running", "pausing", "paused", "queued", "running", "pausing", *history]
    events = [status_event(number, status) for number, status in enumerate(statuses)]
    states = iter([*["pausing"] * 6, *history])
    service.on("POST", f"{JOB_PATH}/pause", job("pausing"))
    service.on("GET", EVENTS_PATH, event_stream(stream_of(*events)))
    service.on("GET", JOB_PATH, lambda request: httpx.Response(200, json=job(next(states))))
    return hyplora("pause", JOB_ID, "--wait")


def test_pause_can_wait_until_the_job_is_paused(hyplora: Run, service: ScriptedService) -> None:
    outcome = wait_for_pause(hyplora, service, "paused")
    assert (outcome.exit_code, outcome.stdout) == (0, f"{JOB_ID} paused\n")
    assert outcome.stderr == f"resume it: hyplora resume {JOB_ID}\n"


@pytest.mark.parametrize("history", [["succeeded"], ["cancelling", "cancelled"]], ids=str)
def test_a_job_that_outran_its_pause_is_told(
    history: list[str], hyplora: Run, service: ScriptedService
) -> None:
    outcome = wait_for_pause(hyplora, service, *history)
    assert (outcome.exit_code, outcome.stdout) == (1, f"{JOB_ID} {history[0]}\n")
    assert "hyplora resume" not in outcome.stderr


def test_resume_says_where_the_job_stands(hyplora: Run, service: ScriptedService) -> None:
    service.on("POST", f"{JOB_PATH}/resume", job("queued"))
    assert hyplora("resume", JOB_ID) == Outcome(0, f"{JOB_ID} queued\n", "")


def test_resume_can_follow_the_job_to_its_end(hyplora: Run, service: ScriptedService) -> None:
    service.on("POST", f"{JOB_PATH}/resume", job("queued"))
    end_with(service, "cancelled")
    outcome = hyplora("resume", JOB_ID, "--follow")
    assert outcome.exit_code == 3
    assert outcome.stdout.startswith(f"{JOB_ID} queued\n")


def test_a_job_that_cannot_be_resumed_is_told(hyplora: Run, service: ScriptedService) -> None:
    sentence = f"{JOB_ID} is running; only a job that is paused can be resumed"
    service.on("POST", f"{JOB_PATH}/resume", problem(409, "job-not-paused", sentence))
    assert hyplora("resume", JOB_ID) == Outcome(1, "", f"error: {sentence}\n")


def test_cancel_says_where_the_job_stands(hyplora: Run, service: ScriptedService) -> None:
    service.on("POST", f"{JOB_PATH}/cancel", job("cancelling"))
    assert hyplora("cancel", JOB_ID) == Outcome(0, f"{JOB_ID} cancelling\n", "")


def test_cancel_can_wait_for_the_end(hyplora: Run, service: ScriptedService) -> None:
    service.on("POST", f"{JOB_PATH}/cancel", job("cancelling"))
    end_with(service, "cancelled")
    assert hyplora("cancel", JOB_ID, "--wait") == Outcome(0, f"{JOB_ID} cancelled\n", "")


def test_a_job_that_outran_its_cancellation_is_told(hyplora: Run, service: ScriptedService) -> None:
    service.on("POST", f"{JOB_PATH}/cancel", job("cancelling"))
    end_with(service, "succeeded")
    outcome = hyplora("cancel", JOB_ID, "--wait")
    assert (outcome.exit_code, outcome.stdout) == (1, f"{JOB_ID} succeeded\n")


def test_upload_prints_the_file_id(hyplora: Run, service: ScriptedService, spec: Path) -> None:
    service.on("POST", "/v1/files", file())
    outcome = hyplora("upload", spec.parent / "rows.jsonl")
    assert outcome.stdout == f"{file()['id']}\n"
    assert b'{"instruction": "a", "output": "b"}' in service.requests[0].content


def test_env_can_be_evaluated_by_a_shell(hyplora: Run, service: ScriptedService) -> None:
    tracking_uri = "http://127.0.0.1:5000"
    info = {"version": "1", "mlflow_tracking_uri": tracking_uri, "ray_dashboard_url": "http://x"}
    service.on("GET", "/v1/info", info)
    assert hyplora("env").stdout == (
        f"export HYPLORA_URL={URL}\n"
        f"export HYPLORA_TOKEN={TOKEN}\n"
        f"export MLFLOW_TRACKING_URI={tracking_uri}\n"
    )


@pytest.mark.parametrize(
    "command",
    [
        ("jobs",),
        ("show", JOB_ID),
        ("logs", JOB_ID),
        ("pause", JOB_ID),
        ("resume", JOB_ID),
        ("cancel", JOB_ID),
        ("follow", JOB_ID),
        ("env",),
    ],
    ids=lambda command: command[0],
)
def test_a_bad_key_is_told_with_where_it_came_from(
    command: tuple[str, ...], home: Path, hyplora: Run, service: ScriptedService
) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        return problem(401, "unauthorized", "the key is expired")

    paths = [
        "/v1/jobs",
        JOB_PATH,
        f"{JOB_PATH}/logs",
        f"{JOB_PATH}/pause",
        f"{JOB_PATH}/resume",
        f"{JOB_PATH}/cancel",
        EVENTS_PATH,
        "/v1/info",
    ]
    for path in paths:
        for method in ("GET", "POST"):
            service.on(method, path, refuse)
    outcome = hyplora(*command)
    assert outcome.exit_code == 1
    assert outcome.stderr == (
        f"error: {URL} refuses the API key from {home / 'token'}: the key is expired\n"
    )


def test_a_service_that_is_away_is_one_line(hyplora: Run, home: Path, silent_url: str) -> None:
    outcome = hyplora("jobs", "--url", silent_url)
    assert outcome.exit_code == 1
    assert outcome.stderr == (
        f"error: nothing answers at {silent_url}: "
        "start a service with `hyplora up`, or check --url\n"
    )


def test_an_unforeseen_error_is_one_sentence_too(
    hyplora: Run, service: ScriptedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise RuntimeError("surprise")

    service.on("GET", "/v1/jobs", fail)
    outcome = hyplora("jobs")
    assert outcome.exit_code == 1
    assert outcome.stderr.startswith("error: internal error, RuntimeError: surprise\n")


def test_up_becomes_the_stack(hyplora: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def become(path: str, command: list[str]) -> None:
        commands.append(command)
        raise SystemExit(0)

    monkeypatch.setattr(os, "execv", become)
    hyplora("up", "--port", "0")
    hyplora("up", "--home", "elsewhere", "--mlflow-port", "1", "--dashboard-port", "2")
    start = [sys.executable, "-P", "-m", "deploy.local", "--home"]
    assert commands == [
        [*start, str(home), "--port", "0"],
        [*start, "elsewhere", "--mlflow-port", "1", "--dashboard-port", "2"],
    ]


def test_the_version_is_that_of_the_distribution(hyplora: Run) -> None:
    assert hyplora("--version").stdout.startswith("hyplora 0.")


@pytest.mark.parametrize(
    ("absent", "sentence"),
    [
        ("typer", "needs typer, which is not installed: run pip install 'hyplora[service]'"),
        ("httpx", "needs httpx, which is not installed: run pip install 'hyplora[service]'"),
    ],
)
def test_without_its_extra_the_command_line_says_what_to_install(
    absent: str, sentence: str
) -> None:
    code = (
        f"import sys; sys.modules[{absent!r}] = None\nfrom service.cli.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from service.cli.app import app\n"
        "heavy = {'mlflow', 'ray', 'torch', 'fastapi', 'sqlalchemy'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_command_is_documented() -> None:
    documented = (Path(__file__).parents[4] / "docs" / "cli.md").read_text()
    for command in app.registered_commands:
        assert command.callback is not None
        assert f"| `hyplora {command.callback.__name__}" in documented

"""The display of a search that is followed."""

import io
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from rich.console import Console

from service.cli.follow import follow_job
from service.cli.follow_search import visible
from service.client import Client
from service.trial_answers import TrialRead
from tests.unit.service.cli.conftest import (
    JOB_ID,
    URL,
    Outcome,
    ScriptedService,
    event,
    event_stream,
    problem,
    status_event,
    stream_of,
    trial,
)
from tests.unit.service.cli.test_trials import JOB_PATH, TRIALS, search

Run = Callable[..., Outcome]
EVENTS = [
    status_event(1, "queued"),
    status_event(2, "running"),
    event(3, "progress", step=1, total_steps=20),
    event(4, "message", level="warning", text="worker 0 failed"),
    event(5, "progress", step=2, total_steps=20),
    status_event(6, "succeeded"),
]
AWAY = problem(503, "mlflow-unavailable", "MLflow is out of reach")


def shown(
    *answers: httpx.Response | list[dict[str, Any]], is_terminal: bool, height: int = 30
) -> str:
    """What a user sees whose looks at the trials have these answers, the last one ever after."""
    left = list(answers)

    def trials(request: httpx.Request) -> httpx.Response:
        answer = left.pop(0) if len(left) > 1 else left[0]
        page = {"data": answer, "has_more": False}
        return httpx.Response(200, json=page) if isinstance(answer, list) else answer

    service = ScriptedService()
    service.on("GET", f"{JOB_PATH}/events", event_stream(stream_of(*EVENTS)))
    service.on("GET", JOB_PATH, search("succeeded"))
    service.on("GET", f"{JOB_PATH}/trials", trials)
    screen = io.StringIO()
    console = Console(
        file=screen, force_terminal=is_terminal, width=140, height=height, markup=False
    )
    with Client(URL, "t", transport=httpx.MockTransport(service)) as client:
        assert follow_job(client, JOB_ID, console).status == "succeeded"
    return re.sub("\x1b\\[[?0-9;]*[a-zA-Z]", "", screen.getvalue())


def test_a_pipe_gets_a_line_for_each_trial_that_ends() -> None:
    first, second = TRIALS[:1], TRIALS[:2]
    lines = shown([], first, second, second, is_terminal=False).splitlines()

    assert [line[10:] for line in lines] == [
        "queued",
        "running",
        "trial-0000 stopped  eval/loss 0.7  adapter.curvature=2.5  adapter.r=8"
        "  ([b]worse[/b] at step 40)",
        "warning: worker 0 failed",
        "trial-0001 completed  eval/loss 0.4321 ± 0.012  adapter.curvature=2.5  adapter.r=8",
        "succeeded",
    ]


def test_trials_that_cannot_be_read_for_a_while_are_told_later() -> None:
    lines = shown(AWAY, AWAY, AWAY, TRIALS[:1], is_terminal=False).splitlines()

    assert sum("MLflow is out of reach; trials are shown later" in line for line in lines) == 1
    assert lines[-2].strip().startswith("trial-0000 stopped")
    assert lines[-1].endswith("succeeded")


def test_a_terminal_gets_a_table_of_trials_and_the_lines_above_it() -> None:
    screen = shown(TRIALS, is_terminal=True)

    assert "warning: worker 0 failed" in screen
    last = screen.splitlines()[-5:]
    assert last[0].split()[3:5] == ["curvature", "r"]
    assert (
        " ".join(last[2].split()) == "★ trial-0001 completed 0.4321 ± 0.012 2.5 8 100/100 0:01:33"
    )
    assert last[4] == "succeeded  2/20 trials, 1 running"


def test_a_terminal_says_that_trials_are_not_up_to_date() -> None:
    screen = shown(TRIALS, AWAY, is_terminal=True)

    assert screen.rstrip().endswith("as last seen: MLflow is out of reach")
    assert "trial-0001" in screen.splitlines()[-4]


def test_a_table_that_is_too_long_for_the_screen_says_how_to_see_the_rest() -> None:
    many = [trial(number, objectives={"eval/loss": number / 7}) for number in range(50)]
    screen = shown(many, is_terminal=True, height=20)

    assert (
        screen.splitlines()[-1]
        == f"succeeded  50/20 trials, 0 running, 36 not shown: hyplora trials {JOB_ID}"
    )


@pytest.mark.parametrize(
    ("num_ended", "num_running", "expected"),
    [(3, 2, (3, 2)), (20, 2, (8, 2)), (20, 20, (5, 5)), (2, 20, (2, 8)), (0, 20, (0, 10))],
)
def test_a_screen_shows_the_best_trials_and_some_that_run(
    num_ended: int, num_running: int, expected: tuple[int, int]
) -> None:
    states = ["completed"] * num_ended + ["running"] * num_running
    trials = [TrialRead.model_validate(trial(n, state)) for n, state in enumerate(states)]

    rows = visible(trials, 10)

    found = [sum(row.state == state for row in rows) for state in ("completed", "running")]
    assert tuple(found) == expected
    assert [row.id for row in rows] == sorted(row.id for row in rows)


def test_following_a_search_ends_with_the_winner_and_how_to_pull_it(
    hyplora: Run, service: ScriptedService
) -> None:
    version = {"name": "sums", "version": "3", "alias": "champion", "uri": "models:/sums/3"}
    service.on("GET", f"{JOB_PATH}/events", event_stream(stream_of(*EVENTS)))
    service.on("GET", JOB_PATH, search("succeeded", model_version=version))
    service.on("GET", f"{JOB_PATH}/trials", {"data": TRIALS, "has_more": False})
    service.on("GET", f"{JOB_PATH}/trials/trial-0001", TRIALS[1])

    outcome = hyplora("follow", JOB_ID)

    assert outcome.exit_code == 0
    assert outcome.stdout.splitlines()[-3:] == [
        "best: trial-0001 completed  eval/loss 0.4321 ± 0.012  adapter.curvature=2.5  adapter.r=8",
        "registered sums version 3",
        "fetch it: hyplora pull sums@champion DIR",
    ]


def test_a_winner_that_cannot_be_read_does_not_change_how_a_search_ended(
    hyplora: Run, service: ScriptedService
) -> None:
    service.on("GET", f"{JOB_PATH}/events", event_stream(stream_of(*EVENTS)))
    service.on("GET", JOB_PATH, search("succeeded"))
    service.on("GET", f"{JOB_PATH}/trials", AWAY)
    service.on("GET", f"{JOB_PATH}/trials/trial-0001", AWAY)

    outcome = hyplora("follow", JOB_ID)

    assert outcome.exit_code == 0
    assert "best: trial-0001 (MLflow is out of reach)" in outcome.stdout

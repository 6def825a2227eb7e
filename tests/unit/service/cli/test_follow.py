"""The display of a job that is followed."""

import io
import re
from typing import Any

import httpx
import pytest
from rich.console import Console

from service.cli.follow import follow_job
from service.client import Client
from tests.unit.service.cli.conftest import (
    JOB_ID,
    URL,
    ScriptedService,
    event,
    event_stream,
    job,
    status_event,
    stream_of,
)


def progress_event(number: int, step: int, total: int = 100, **fields: Any) -> dict[str, Any]:
    return event(number, "progress", step=step, total_steps=total, **fields)


def shown(events: list[dict[str, Any]], *, is_terminal: bool, kind: str = "finetune") -> str:
    """What a user sees of a job with these events."""
    service = ScriptedService()
    service.on("GET", f"/v1/jobs/{JOB_ID}/events", event_stream(stream_of(*events)))
    service.on("GET", f"/v1/jobs/{JOB_ID}", job("succeeded", kind=kind))
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=is_terminal, width=100, markup=False)
    with Client(URL, "t", transport=httpx.MockTransport(service)) as client:
        assert follow_job(client, JOB_ID, console).status == "succeeded"
    return screen.getvalue()


EVENTS = [
    status_event(1, "queued"),
    status_event(2, "running"),
    progress_event(3, 1, loss=2.5),
    progress_event(4, 60, loss=1.23456, eval_loss=1.5, tokens_per_s=1234.5, seconds_left=3723.4),
    event(5, "message", level="warning", text="attempt 2: the [driver] was lost"),
    progress_event(6, 100, loss=0.5, eval_loss=1.5, seconds_left=0),
    status_event(7, "succeeded"),
]


def test_a_pipe_gets_plain_lines() -> None:
    lines = shown(EVENTS, is_terminal=False).splitlines()
    assert [line[10:] for line in lines] == [
        "queued",
        "running",
        "step 1/100  loss 2.500",
        "step 60/100  loss 1.235  eval 1.500  1,234 tok/s  1:02:03 left",
        "warning: attempt 2: the [driver] was lost",
        "step 100/100  loss 0.5000  eval 1.500  0:00:00 left",
        "succeeded",
    ]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_paused_job_is_shown_with_how_to_resume_it_and_followed_on(is_terminal: bool) -> None:
    reason = "stopped at the checkpoint of step 120"
    paused = event(2, "status", status="paused", previous="pausing", terminal=False, reason=reason)
    events = [status_event(1, "pausing"), paused, status_event(3, "queued")]
    screen = shown([*events, status_event(4, "succeeded")], is_terminal=is_terminal)
    text = " ".join(re.sub("\x1b\\[[?0-9;]*[a-zA-Z]", "", screen).split())
    assert f"paused: {reason}; resume it: hyplora resume {JOB_ID}" in text
    assert text.index("paused:") < text.index("queued", text.index("paused:"))
    assert "succeeded" in text


def test_a_pipe_gets_about_twenty_progress_lines_a_job() -> None:
    steps = [progress_event(number, number, 1000) for number in range(1, 1001)]
    events = [status_event(0, "running"), *steps, status_event(1001, "succeeded")]
    lines = shown(events, is_terminal=False).splitlines()
    assert 18 <= sum(" step " in line for line in lines) <= 22
    assert "step 1000/1000" in lines[-2]


@pytest.mark.parametrize(
    ("kind", "counted"),
    [("evaluate", "rows"), ("compare", "trainings and evaluations"), ("analyze", "parts")],
)
@pytest.mark.parametrize("is_terminal", [True, False])
def test_other_jobs_count_what_they_do_and_end_with_what_they_found(
    kind: str, counted: str, is_terminal: bool
) -> None:
    end = status_event(2, "succeeded")
    end["data"]["reason"] = "tuned wins"
    events = [progress_event(1, 37, 120, tokens_per_s=512.0), end]
    screen = re.sub(
        "\x1b\\[[?0-9;]*[a-zA-Z]", "", shown(events, is_terminal=is_terminal, kind=kind)
    )
    assert f"37/120 {counted}  512 tok/s" in screen
    assert "step" not in screen
    assert "succeeded: tuned wins" in screen


def test_a_new_evaluation_is_always_shown_in_a_pipe() -> None:
    events = [
        progress_event(1, 1, 1000),
        progress_event(2, 2, 1000, eval_loss=1.5),
        progress_event(3, 3, 1000, eval_loss=1.5),
        status_event(4, "succeeded"),
    ]
    assert shown(events, is_terminal=False).count("step") == 2


def test_a_terminal_gets_a_bar_and_the_lines_above_it() -> None:
    screen = re.sub("\x1b\\[[?0-9;]*[a-zA-Z]", "", shown(EVENTS, is_terminal=True))
    bar = [line for line in screen.splitlines() if "━" in line][-1]
    assert bar.startswith("succeeded ━")
    assert "100/100  loss 0.5000  eval 1.500" in bar
    assert "warning: attempt 2: the [driver] was lost" in screen


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_job_that_ends_before_its_first_step_is_shown(is_terminal: bool) -> None:
    assert "succeeded" in shown([status_event(1, "succeeded")], is_terminal=is_terminal)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_without_any_figure_is_shown(is_terminal: bool) -> None:
    events = [event(1, "progress"), status_event(2, "succeeded")]
    assert "0/?" in shown(events, is_terminal=is_terminal)


def test_a_lost_connection_is_told_once() -> None:
    service = ScriptedService()
    streams = iter(
        [
            event_stream(stream_of(status_event(1, "running"))),
            httpx.Response(502),
            event_stream(stream_of(status_event(2, "succeeded"))),
        ]
    )
    service.on("GET", f"/v1/jobs/{JOB_ID}/events", lambda request: next(streams))
    service.on("GET", f"/v1/jobs/{JOB_ID}", job("running"))
    screen = io.StringIO()
    transport = httpx.MockTransport(service)
    with Client(URL, "t", transport=transport, reconnect_wait_s=0) as client:
        follow_job(client, JOB_ID, Console(file=screen, width=200))
    assert screen.getvalue().count("trying to connect again") == 1


def test_a_service_that_is_away_at_first_is_waited_for() -> None:
    service = ScriptedService()
    done = event_stream(stream_of(status_event(1, "succeeded")))
    streams = iter([httpx.Response(502), done])
    service.on("GET", f"/v1/jobs/{JOB_ID}/events", lambda request: next(streams))
    service.on("GET", f"/v1/jobs/{JOB_ID}", job("succeeded"))
    screen = io.StringIO()
    transport = httpx.MockTransport(service)
    with Client(URL, "t", transport=transport, reconnect_wait_s=0) as client:
        follow_job(client, JOB_ID, Console(file=screen, width=200))
    first, last = screen.getvalue().splitlines()
    assert first.endswith("trying to connect again …")
    assert last.endswith("succeeded")

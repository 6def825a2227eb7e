import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobs.tickets import DRY_RUN_MARK, TICKET_VARIABLE, DryRunTicket
from service.boundaries import DriverRequest, DriverState
from service.errors import RayUnavailableError
from tests.unit.service.stage import Stage, make_settings

RESULT: dict[str, Any] = {
    "steps": 12,
    "num_train_rows": 60,
    "num_held_out_rows": 4,
    "num_tokens": 1800,
    "longest_row": 41,
    "num_trainable_parameters": 8192,
    "num_parameters": 35072,
    "memory": {
        "base_model": 1,
        "adapter": 2,
        "optimizer": 3,
        "activations": 4,
        "logits": 5,
        "framework": 6,
        "total": 21,
    },
    "memory_fits": True,
    "memory_reason": None,
    "placement": {"possible": True, "reason": None, "device": "cpu"},
}
FAILURE = {"code": "row-too-long", "message": "data.train, line 1 has 900 tokens"}


async def dry_run(stage: Stage, **changes: Any) -> httpx.Response:
    spec = await stage.spec(**changes)
    return await stage.client.post("/v1/jobs?dry_run=true", json=spec)


@contextmanager
def answering(
    stage: Stage, document: object, state: DriverState = DriverState.SUCCEEDED
) -> Iterator[None]:
    """Let every driver write a document among other lines and end at once."""
    submit = stage.ray.submit

    async def submit_and_end(request: DriverRequest) -> None:
        await submit(request)
        stage.ray.end(request.submission_id, state, "exit code 1")
        line = f"{DRY_RUN_MARK}{json.dumps(document)}"
        stage.ray.logs[request.submission_id] = f"a warning\n{line}\nlast words\n"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage.ray, "submit", submit_and_end)
        yield


async def started(stage: Stage) -> str:
    """Wait until there is a driver and return its id."""
    while not stage.ray.requests:  # noqa: ASYNC110 (the fake has no event to wait for)
        await asyncio.sleep(0)
    return stage.ray.requests[0].submission_id


async def test_a_dry_run_answers_what_the_cluster_found_and_keeps_nothing(stage: Stage) -> None:
    with answering(stage, {"result": RESULT}):
        response = await dry_run(stage)

    assert response.status_code == 200, response.text
    uncounted = dict.fromkeys(("num_trainings", "num_evaluations", "num_questions"))
    assert response.json() == RESULT | uncounted
    assert (await stage.get("/v1/jobs"))["data"] == []
    assert not stage.mlflow.runs
    assert not stage.ray.stops


async def test_its_driver_gets_the_spec_and_the_rows_and_no_gpu(stage: Stage) -> None:
    with answering(stage, {"result": RESULT}):
        await dry_run(stage, adapter={"r": 4})

    (request,) = stage.ray.requests
    assert request.entrypoint == "python -m jobs.dry_run"
    assert request.submission_id.startswith("dryrun-")
    assert request.metadata["kind"] == "dry-run"
    assert request.environment["CUDA_VISIBLE_DEVICES"] == ""
    ticket = DryRunTicket.model_validate_json(request.environment[TICKET_VARIABLE])
    assert ticket.spec.adapter.r == 4
    rows = ticket.files[ticket.spec.data.train]
    assert rows.uri == str(stage.settings.files_dir / rows.sha256)


async def test_what_can_never_be_placed_is_an_answer(stage: Stage) -> None:
    reason = "resources: 1 worker(s) need 9 CPU together, the cluster has 2"
    nowhere = {"possible": False, "reason": reason, "device": "cpu"}
    with answering(stage, {"result": RESULT | {"placement": nowhere}}):
        response = await dry_run(stage)

    assert response.status_code == 200
    assert response.json()["placement"] == nowhere


async def test_what_would_fail_the_job_is_a_problem_with_the_code_of_the_failure(
    stage: Stage,
) -> None:
    with answering(stage, {"failure": FAILURE}):
        response = await dry_run(stage)

    problem = response.json()
    assert response.status_code == problem["status"] == 422
    assert (problem["code"], problem["detail"]) == (FAILURE["code"], FAILURE["message"])
    assert problem["type"] == "urn:hyplora:problem:row-too-long"
    assert problem["title"] == "The job would fail"


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"adapter": {"r": 0}}, 422, "spec-invalid"),
        ({"train": "file-0000000000000000"}, 404, "file-not-found"),
    ],
)
async def test_what_a_job_is_refused_for_is_refused_before_anything_is_started(
    stage: Stage, changes: dict[str, Any], status: int, code: str
) -> None:
    response = await dry_run(stage, **changes)

    assert (response.status_code, response.json()["code"]) == (status, code)
    assert not stage.ray.requests


async def test_rows_that_are_gone_from_storage_are_the_failure_that_the_job_would_have(
    stage: Stage,
) -> None:
    train = await stage.upload()
    for path in stage.settings.files_dir.iterdir():
        if path.is_file():
            path.unlink()

    response = await dry_run(stage, train=train)

    assert (response.status_code, response.json()["code"]) == (422, "data-invalid")


@pytest.mark.parametrize(
    ("document", "state"),
    [
        ({}, DriverState.FAILED),
        ({"result": {"steps": 1}}, DriverState.SUCCEEDED),
        ([], DriverState.STOPPED),
    ],
)
async def test_a_driver_that_ends_without_an_answer_is_an_internal_error(
    stage: Stage, document: object, state: DriverState
) -> None:
    with answering(stage, document, state):
        response = await dry_run(stage)

    problem = response.json()
    assert (response.status_code, problem["code"]) == (500, "internal")
    assert f"ended without an answer ({state}: exit code 1)" in problem["detail"]


async def test_a_driver_that_ray_has_forgotten_is_asked_for_again(stage: Stage) -> None:
    with answering(stage, {}, DriverState.UNKNOWN):
        response = await dry_run(stage)

    assert (response.status_code, response.json()["code"]) == (503, "ray-unavailable")


async def test_a_cluster_that_is_away_or_refuses_is_told(stage: Stage) -> None:
    stage.ray.refuses = True
    refused = await dry_run(stage)
    stage.ray.is_away = True
    away = await dry_run(stage)

    assert (refused.status_code, refused.json()["code"]) == (500, "internal")
    assert (away.status_code, away.json()["code"]) == (503, "ray-unavailable")


async def test_a_driver_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    async with Stage(make_settings(tmp_path, dry_run_timeout_s=0.05)) as stage:
        response = await dry_run(stage)

        problem = response.json()
        assert (response.status_code, problem["code"]) == (504, "dry-run-timeout")
        assert "within 0.05 s" in problem["detail"]
        assert stage.ray.stops == [stage.ray.requests[0].submission_id]


async def test_more_than_a_bounded_number_at_once_are_refused(tmp_path: Path) -> None:
    async with Stage(make_settings(tmp_path, max_dry_runs=1)) as stage:
        first = asyncio.create_task(dry_run(stage))
        driver = await started(stage)
        refused = await dry_run(stage)
        stage.ray.logs[driver] = f"\n{DRY_RUN_MARK}{json.dumps({'result': RESULT})}\n"
        stage.ray.end(driver, DriverState.SUCCEEDED)

        assert (refused.status_code, refused.json()["code"]) == (429, "dry-runs-busy")
        assert int(refused.headers["Retry-After"]) > 0
        assert (await first).status_code == 200
        with answering(stage, {"result": RESULT}):
            assert (await dry_run(stage)).status_code == 200, "there is room again"


async def test_a_service_that_stops_stops_its_drivers(stage: Stage) -> None:
    asking = asyncio.create_task(dry_run(stage))
    driver = await started(stage)

    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking

    assert stage.ray.stops == [driver]


async def test_a_client_that_goes_away_stops_its_driver(stage: Stage) -> None:
    body = json.dumps(await stage.spec()).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"authorization", stage.client.headers["Authorization"].encode()),
    ]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
        "scheme": "http", "path": "/v1/jobs", "raw_path": b"/v1/jobs", "root_path": "",
        "query_string": b"dry_run=true", "headers": headers, "client": None, "server": None,
    }  # fmt: skip
    messages = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Any] = []
    has_left = asyncio.Event()

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await has_left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asking = asyncio.create_task(stage.app(scope, receive, send))
    driver = await started(stage)
    assert not stage.ray.stops
    has_left.set()
    await asking

    assert stage.ray.stops == [driver]
    assert not sent


async def test_a_cluster_that_goes_away_while_its_driver_runs_ends_the_dry_run(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    asking = asyncio.create_task(dry_run(stage))
    driver = await started(stage)
    stage.ray.is_away = True

    response = await asking

    assert (response.status_code, response.json()["code"]) == (503, RayUnavailableError.code)
    assert f"{driver} could not be stopped" in caplog.text

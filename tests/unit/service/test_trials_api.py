import json
import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobs.tickets import RunTag
from service.boundaries import DriverState, RunStatus
from service.errors import RefusedError
from tests.unit.service.stage import Stage, field_errors

SPACE = {
    "adapter.curvature": {"loguniform": [0.1, 10]},
    "adapter.r": {"choice": [4, 8, 16]},
    "training.quantization": {"choice": [None, "8bit"]},
}


def add_trial(
    stage: Stage,
    job_id: str,
    number: int,
    state: str = "running",
    values: Mapping[str, object] | None = None,
    **metrics: float,
) -> str:
    """Open a trial as the search's driver does, and end it if its state says so."""
    trial_id = f"trial-{number:04}"
    named = {name.replace("__", "/"): value for name, value in metrics.items()}
    run_id = stage.mlflow.add_child(
        stage.run_id(job_id),
        named,
        TRIAL_ID=trial_id,
        TRIAL_VALUES=json.dumps(values or {"adapter.r": 8}),
        TRIAL_STATE=state,
    )
    if state != "running":
        run = stage.mlflow.runs[run_id]
        assert run.started_at is not None
        ended_at = run.started_at + timedelta(seconds=100 - number)
        stage.mlflow.runs[run_id] = replace(run, status=RunStatus.FINISHED, ended_at=ended_at)
    return trial_id


async def started(stage: Stage, **changes: Any) -> str:
    return await stage.started(**await stage.search_spec(space=SPACE, **changes))


async def ids(stage: Stage, job_id: str, query: str = "") -> list[int]:
    """Numbers of the trials that are listed."""
    page = await stage.get(f"/v1/jobs/{job_id}/trials{query}")
    return [int(trial["id"][-4:]) for trial in page["data"]]


async def refusal(stage: Stage, path: str, method: str = "GET") -> tuple[int, str, str]:
    response = await stage.client.request(method, path)
    document = response.json()
    return response.status_code, document["code"], document["detail"]


async def test_a_trial_tells_its_values_its_objectives_and_how_far_it_is(stage: Stage) -> None:
    job_id = await started(stage)
    trial_id = add_trial(
        stage,
        job_id,
        7,
        "stopped",
        {"adapter.curvature": 2.5, "adapter.r": 4, "training.quantization": None},
        objective__eval__loss=math.nan,
        progress__step=40,
        progress__total_steps=100,
        train__loss=1.5,
    )
    (run,) = stage.mlflow.children_of(stage.run_id(job_id))
    stage.mlflow.measure(
        run.ref.run_id,
        {"objective/eval/loss": 0.5, "objective_error/eval/loss": 0.02, "eval/loss": math.inf},
    )
    stage.mlflow.tag(run.ref.run_id, TRIAL_REASON="worse than the median of the others")
    stage.mlflow.tag(stage.run_id(job_id), BEST_TRIALS=json.dumps([trial_id]))

    trial = await stage.get(f"/v1/jobs/{job_id}/trials/{trial_id}")

    assert run.started_at is not None
    assert trial == {
        "id": "trial-0007",
        "state": "stopped",
        "reason": "worse than the median of the others",
        "values": {"adapter.curvature": 2.5, "adapter.r": 4, "training.quantization": None},
        "objectives": {"eval/loss": 0.5},
        "errors": {"eval/loss": 0.02},
        "metrics": {"train/loss": 1.5},
        "step": 40,
        "total_steps": 100,
        "started_at": f"{run.started_at:%Y-%m-%dT%H:%M:%SZ}",
        "finished_at": f"{run.started_at + timedelta(seconds=93):%Y-%m-%dT%H:%M:%SZ}",
        "seconds": 93.0,
        "is_best": True,
        "cancel_requested": False,
        "links": {
            "self": f"/v1/jobs/{job_id}/trials/trial-0007",
            "job": f"/v1/jobs/{job_id}",
            "mlflow_run": f"http://127.0.0.1:5000/#/experiments/7/runs/{run.ref.run_id}",
        },
    }
    assert (await stage.get(f"/v1/jobs/{job_id}/trials"))["data"] == [trial]
    assert (await stage.job(job_id))["links"]["trials"] == f"/v1/jobs/{job_id}/trials"


async def test_a_trial_that_has_just_begun_has_no_end_and_no_objective(stage: Stage) -> None:
    job_id = await started(stage)
    trial_id = add_trial(stage, job_id, 0)

    trial = await stage.get(f"/v1/jobs/{job_id}/trials/{trial_id}")

    assert (trial["state"], trial["step"], trial["finished_at"]) == ("running", None, None)
    assert (trial["objectives"], trial["errors"], trial["is_best"]) == ({}, {}, False)
    began = datetime.fromisoformat(trial["started_at"])
    assert trial["seconds"] == pytest.approx((datetime.now(UTC) - began).total_seconds(), abs=60)


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("number", [0, 1, 2, 3]),
        ("id", [0, 1, 2, 3]),
        ("-number", [3, 2, 1, 0]),
        ("objective", [2, 0, 1, 3]),
        ("-objective", [1, 0, 2, 3]),
        ("objective/eval/loss", [2, 0, 1, 3]),
        ("steps", [1, 2, 0, 3]),
        ("-steps", [0, 1, 2, 3]),
        ("seconds", [2, 1, 0, 3]),
        ("-started_at", [3, 2, 1, 0]),
        ("adapter.curvature", [1, 2, 0, 3]),
        ("-adapter.curvature", [0, 2, 1, 3]),
        ("training.quantization", [2, 0, 1, 3]),
        ("eval/loss", [2, 0, 1, 3]),
        ("a/metric/of/its/own", [1, 0, 2, 3]),
        ("state", [0, 1, 2, 3]),
    ],
)
async def test_trials_are_sorted_and_those_without_the_value_come_last(
    sort: str, expected: list[int], stage: Stage
) -> None:
    job_id = await started(stage)
    losses, steps, curvatures = (0.5, 0.9, 0.3), (50, 20, 20), (9.0, 0.1, 1.5)
    for number, (loss, step, curvature) in enumerate(zip(losses, steps, curvatures, strict=True)):
        values = {
            "adapter.curvature": curvature,
            "training.quantization": "8bit" if number == 2 else None,
        }
        metrics = {"objective__eval__loss": loss, "eval__loss": loss, "progress__step": step}
        if number == 1:
            metrics["a__metric__of__its__own"] = 1.0
        add_trial(stage, job_id, number, "completed", values, **metrics)
    add_trial(stage, job_id, 3)

    assert await ids(stage, job_id, f"?sort={sort}") == expected


async def test_values_of_different_types_are_sorted_numbers_first(stage: Stage) -> None:
    job_id = await started(stage)
    for number, value in enumerate([["b"], "a", 2, True]):
        add_trial(stage, job_id, number, values={"adapter.r": value})

    assert await ids(stage, job_id, "?sort=adapter.r") == [3, 2, 0, 1]


async def test_something_that_trials_cannot_be_sorted_by_is_refused_with_what_there_is(
    stage: Stage,
) -> None:
    job_id = await started(stage)
    add_trial(stage, job_id, 0, a__metric=1.0)

    response = await stage.client.get(f"/v1/jobs/{job_id}/trials?sort=-curvature")

    assert response.status_code == 422
    assert response.json()["code"] == "request-invalid"
    message = field_errors(response.json())["sort"]
    for key in ("number", "objective", "adapter.curvature", "eval/loss", "a/metric"):
        assert f" {key}," in message or f"{key};" in message


async def test_trials_are_paged_and_filtered_by_state(stage: Stage) -> None:
    job_id = await started(stage)
    for number, state in enumerate(["completed", "running", "stopped", "completed", "running"]):
        add_trial(stage, job_id, number, state)

    assert await ids(stage, job_id, "?state=completed") == [0, 3]
    assert await ids(stage, job_id, "?limit=2") == [0, 1]
    assert await ids(stage, job_id, "?limit=2&after=trial-0001") == [2, 3]
    assert await ids(stage, job_id, "?sort=-number&state=running&after=trial-0003") == [1]
    page = await stage.get(f"/v1/jobs/{job_id}/trials?limit=5")
    assert page["has_more"] is False
    page = await stage.get(f"/v1/jobs/{job_id}/trials?limit=4")
    assert page["has_more"] is True


async def test_a_page_goes_on_after_a_trial_whose_state_has_changed(stage: Stage) -> None:
    job_id = await started(stage)
    for number in range(3):
        add_trial(stage, job_id, number)
    first, *_ = stage.mlflow.children_of(stage.run_id(job_id))
    stage.mlflow.tag(first.ref.run_id, TRIAL_STATE="completed")

    assert await ids(stage, job_id, "?state=running&after=trial-0000") == [1, 2]


async def test_a_search_that_waits_has_no_trials(stage: Stage) -> None:
    job_id = await stage.submit(**await stage.search_spec())

    assert await stage.get(f"/v1/jobs/{job_id}/trials") == {"data": [], "has_more": False}


async def test_of_two_runs_of_a_trial_the_later_counts_and_a_refit_is_no_trial(
    stage: Stage,
) -> None:
    job_id = await started(stage)
    add_trial(stage, job_id, 0, "failed")
    add_trial(stage, job_id, 0, "completed")
    stage.mlflow.add_child(stage.run_id(job_id), {})

    page = await stage.get(f"/v1/jobs/{job_id}/trials")

    assert [(trial["id"], trial["state"]) for trial in page["data"]] == [
        ("trial-0000", "completed")
    ]


async def test_trials_that_a_killed_driver_left_open_end_with_their_search(stage: Stage) -> None:
    job_id = await started(stage)
    add_trial(stage, job_id, 0, "completed")
    add_trial(stage, job_id, 1)
    await stage.ask(job_id, "cancel")
    stage.ray.end(f"{job_id}-a1", DriverState.STOPPED)
    await stage.work()

    page = await stage.get(f"/v1/jobs/{job_id}/trials")

    job = await stage.job(job_id)
    assert [trial["state"] for trial in page["data"]] == ["completed", "cancelled"]
    assert page["data"][1]["reason"] == "its search ended first"
    assert page["data"][1]["finished_at"] == job["finished_at"]


async def test_only_a_search_has_trials(stage: Stage) -> None:
    job_id = await stage.started()

    for method, path in (
        ("GET", "trials"),
        ("GET", "trials/trial-0000"),
        ("POST", "trials/trial-0000/cancel"),
    ):
        status, code, detail = await refusal(stage, f"/v1/jobs/{job_id}/{path}", method)
        assert (status, code) == (404, "job-not-a-search")
        assert "finetune" in detail


async def test_a_trial_or_a_search_that_is_not_there_is_told(stage: Stage) -> None:
    job_id = await started(stage)

    for path in ("trials/trial-0009", "trials?after=trial-0009"):
        status, code, _ = await refusal(stage, f"/v1/jobs/{job_id}/{path}")
        assert (status, code) == (404, "trial-not-found")
    status, code, _ = await refusal(stage, "/v1/jobs/job-0000000000000000/trials")
    assert (status, code) == (404, "job-not-found")


async def test_without_mlflow_trials_are_unavailable(stage: Stage) -> None:
    job_id = await started(stage)
    stage.mlflow.is_away = True

    status, code, _ = await refusal(stage, f"/v1/jobs/{job_id}/trials")

    assert (status, code) == (503, "mlflow-unavailable")


async def test_a_trial_is_cancelled_by_a_wish_on_its_run_and_again_is_no_error(
    stage: Stage,
) -> None:
    job_id = await started(stage)
    add_trial(stage, job_id, 0)
    add_trial(stage, job_id, 1)

    for _ in range(2):
        answer = await stage.ask(job_id, "trials/trial-0001/cancel")
        assert (answer["state"], answer["cancel_requested"]) == ("running", True)

    first, second = stage.mlflow.children_of(stage.run_id(job_id))
    assert RunTag.CANCEL_REQUESTED not in first.tags
    assert second.tags[RunTag.CANCEL_REQUESTED] == "true"
    listed = await stage.get(f"/v1/jobs/{job_id}/trials")
    assert [trial["cancel_requested"] for trial in listed["data"]] == [False, True]
    assert (await stage.job(job_id))["status"] == "running"


@pytest.mark.parametrize("state", ["completed", "stopped", "cancelled", "failed"])
async def test_a_trial_that_has_ended_cannot_be_cancelled(state: str, stage: Stage) -> None:
    job_id = await started(stage)
    trial_id = add_trial(stage, job_id, 0, state)

    path = f"/v1/jobs/{job_id}/trials/{trial_id}/cancel"
    status, code, detail = await refusal(stage, path, "POST")

    assert (status, code) == (409, "trial-already-ended")
    assert state in detail


@pytest.mark.parametrize("verb", ["pause", "cancel"])
async def test_trials_of_a_search_that_does_not_run_cannot_be_cancelled(
    verb: str, stage: Stage
) -> None:
    job_id = await started(stage)
    trial_id = add_trial(stage, job_id, 0)
    await stage.ask(job_id, verb)

    path = f"/v1/jobs/{job_id}/trials/{trial_id}/cancel"
    status, code, _ = await refusal(stage, path, "POST")

    assert (status, code) == (409, "job-not-running")


async def test_a_trial_whose_run_was_deleted_meanwhile_is_not_found(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await started(stage)
    trial_id = add_trial(stage, job_id, 0)

    async def refuse(run_id: str, tag: str, value: str) -> None:
        raise RefusedError("MLflow refused: the run is deleted")

    monkeypatch.setattr(stage.mlflow, "set_tag", refuse)
    path = f"/v1/jobs/{job_id}/trials/{trial_id}/cancel"
    status, code, detail = await refusal(stage, path, "POST")

    assert (status, code) == (404, "trial-not-found")
    assert "the run is deleted" in detail


async def test_a_thousand_trials_are_one_page(stage: Stage) -> None:
    job_id = await started(stage)
    for number in range(1000):
        add_trial(stage, job_id, number)

    assert await ids(stage, job_id, "?limit=1000&sort=-number") == list(range(999, -1, -1))

"""The metrics of jobs, as the API hands them out."""

import math
from typing import Any

import pytest

from jobs.tickets import RunTag
from service import job_metrics
from service.turns import Turns
from tests.unit.service.stage import Stage

LOSSES = [(step, 3 / step) for step in range(1, 1001)]


async def refused(stage: Stage, path: str) -> tuple[int, str, str]:
    response = await stage.client.get(path)
    problem = response.json()
    return response.status_code, problem["code"], problem["detail"]


async def series(stage: Stage, path: str) -> dict[str, dict[str, Any]]:
    return {each["key"]: each for each in (await stage.get(path))["data"]}


async def test_the_metrics_of_a_job_are_series_by_name(stage: Stage) -> None:
    job_id = await stage.started()
    run_id = stage.run_id(job_id)
    stage.mlflow.log(run_id, "train/loss", LOSSES)
    stage.mlflow.log(run_id, "eval/loss", [(500, 2.0), (1000, 1.0)])

    answer = await stage.get(f"/v1/jobs/{job_id}/metrics")

    assert answer["names"] == ["eval/loss", "train/loss"]
    assert answer["has_more"] is False
    evaluated, trained = answer["data"]
    assert evaluated == {
        "key": "eval/loss",
        "num_points": 2,
        "num_not_finite": 0,
        "is_sampled": False,
        "steps": [500, 1000],
        "values": [2.0, 1.0],
        "times_ms": [0, 1000],
        "not_finite": [],
    }
    assert trained["num_points"] == 1000
    assert len(trained["steps"]) == len(trained["values"]) == len(trained["times_ms"]) <= 500
    assert (trained["values"][0], trained["values"][-1]) == (3.0, 0.003)


async def test_metrics_are_chosen_by_key_and_may_be_missing_yet(stage: Stage) -> None:
    job_id = await stage.started()
    for key in ("train/loss", "train/learning_rate"):
        stage.mlflow.log(stage.run_id(job_id), key, LOSSES)

    found = await series(
        stage, f"/v1/jobs/{job_id}/metrics?key=train/loss&key=eval/loss&max_points=1000"
    )

    assert list(found) == ["eval/loss", "train/loss"]
    assert found["eval/loss"]["steps"] == []
    assert found["train/loss"]["steps"] == list(range(1, 1001))


async def test_many_metrics_come_in_parts(stage: Stage) -> None:
    job_id = await stage.started()
    names = [f"geometry/gain/layer{number:02}" for number in range(45)]
    for name in names:
        stage.mlflow.log(stage.run_id(job_id), name, [(1, 1.0)])
    found: list[str] = []
    path, after = f"/v1/jobs/{job_id}/metrics", ""

    for _ in range(3):
        answer = await stage.get(f"{path}?after={after}" if after else path)
        assert answer["names"] == names
        found += [each["key"] for each in answer["data"]]
        after = found[-1]

    assert found == names
    assert answer["has_more"] is False


async def test_a_loss_that_diverged_is_seen(stage: Stage) -> None:
    job_id = await stage.started()
    losses = [*LOSSES, (1001, math.nan), (1002, math.inf), (1003, 1.0), (1004, -math.inf)]
    stage.mlflow.log(stage.run_id(job_id), "train/loss", losses)

    found = (await series(stage, f"/v1/jobs/{job_id}/metrics?max_points=5000"))["train/loss"]

    assert found["values"][-4:] == [None, None, 1.0, None]
    assert found["num_not_finite"] == 3
    assert found["not_finite"] == [
        {"step": 1001, "value": "nan"},
        {"step": 1002, "value": "inf"},
        {"step": 1004, "value": "-inf"},
    ]


async def test_what_mlflow_has_sampled_is_told(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_metrics, "_MOST_POINTS", 1500)
    job_id = await stage.started()
    for key in ("train/loss", "train/learning_rate"):
        stage.mlflow.log(stage.run_id(job_id), key, LOSSES)
    path = f"/v1/jobs/{job_id}/metrics"

    together, alone = await series(stage, path), await series(stage, f"{path}?key=train/loss")

    assert together["train/loss"]["is_sampled"] is True
    assert together["train/loss"]["num_points"] == 100
    assert alone["train/loss"]["is_sampled"] is False
    assert alone["train/loss"]["num_points"] == 1000


async def test_a_job_that_has_not_begun_has_no_metrics(stage: Stage) -> None:
    waiting = await stage.submit()
    paused = await stage.submit()
    await stage.ask(paused, "pause")

    for job_id in (waiting, paused):
        answer = await stage.get(f"/v1/jobs/{job_id}/metrics")
        assert answer == {"data": [], "has_more": False, "names": []}
        found = await series(stage, f"/v1/jobs/{job_id}/metrics?key=train/loss")
        assert found["train/loss"]["num_points"] == 0


async def test_a_job_that_is_paused_shows_what_it_has(stage: Stage) -> None:
    job_id = await stage.started()
    stage.mlflow.log(stage.run_id(job_id), "train/loss", LOSSES)
    await stage.pause(job_id)

    assert (await series(stage, f"/v1/jobs/{job_id}/metrics"))["train/loss"]["num_points"] == 1000


async def test_the_metrics_of_a_trial_are_those_of_its_run(stage: Stage) -> None:
    job_id = await stage.begin(await stage.search_spec())
    lost = stage.mlflow.add_child(stage.run_id(job_id), {}, TRIAL_ID="trial-0001")
    child = stage.mlflow.add_child(stage.run_id(job_id), {}, TRIAL_ID="trial-0001")
    stage.mlflow.log(lost, "train/loss", [(1, 9.0)])
    stage.mlflow.log(child, "train/loss", LOSSES)
    path = f"/v1/jobs/{job_id}/metrics"

    found = await series(stage, f"{path}?trial=trial-0001")

    assert found["train/loss"]["num_points"] == 1000
    assert (await stage.get(path))["names"] == []
    status, code, detail = await refused(stage, f"{path}?trial=trial-0002")
    assert (status, code) == (404, "trial-not-found")
    assert "it has trial-0001" in detail


async def test_the_metrics_of_a_training_are_those_of_its_run(stage: Stage) -> None:
    job_id = await stage.begin(await stage.compare_spec())
    child = stage.mlflow.add_child(stage.run_id(job_id), {}, TRAINING="lora-lr0.0003-seed0")
    stage.mlflow.log(child, "eval/loss", [(1, 1.5)])

    found = await series(stage, f"/v1/jobs/{job_id}/metrics?trial=lora-lr0.0003-seed0")

    assert found["eval/loss"]["values"] == [1.5]


async def test_a_fine_tune_has_no_trials(stage: Stage) -> None:
    job_id = await stage.started()

    found = await refused(stage, f"/v1/jobs/{job_id}/metrics?trial=trial-0001")

    assert found[:2] == (404, "trial-not-found")


async def test_a_run_that_someone_has_deleted_is_told(stage: Stage) -> None:
    job_id = await stage.started()
    run_id = stage.run_id(job_id)
    assert stage.mlflow.runs.pop(run_id).tags[RunTag.JOB_ID] == job_id

    status, code, detail = await refused(stage, f"/v1/jobs/{job_id}/metrics")

    assert (status, code) == (404, "run-not-found")
    assert run_id in detail


async def test_mlflow_that_is_away_is_told(stage: Stage) -> None:
    job_id = await stage.started()
    stage.mlflow.is_away = True

    found = await refused(stage, f"/v1/jobs/{job_id}/metrics")

    assert found[:2] == (503, "mlflow-unavailable")


async def test_requests_take_turns_and_none_waits_for_ever(stage: Stage) -> None:
    stage.parts.metrics._turns = turns = Turns(number=1, patience_s=0.0)
    job_id = await stage.started()
    async with turns.taken():
        status, code, detail = await refused(stage, f"/v1/jobs/{job_id}/metrics")

    assert (status, code) == (503, "mlflow-unavailable")
    assert "ask for less" in detail
    await stage.get(f"/v1/jobs/{job_id}/metrics")


@pytest.mark.parametrize(
    "query", ["max_points=9", "max_points=5001", "key=", "limit=0", "limit=51", "key=a&" * 51]
)
async def test_parameters_out_of_bounds_are_refused(stage: Stage, query: str) -> None:
    job_id = await stage.started()

    found = await refused(stage, f"/v1/jobs/{job_id}/metrics?{query}")

    assert found[:2] == (422, "request-invalid")

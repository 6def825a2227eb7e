"""The checkpoints of a job, as the API lists them."""

import json
import math
from pathlib import Path

import pytest

from service.checkpoint_storage import CheckpointStorage
from tests.unit.service.stage import Stage
from workers.specs import RunMetric

STEPS = [50, 100, 150, 200]


def store(stage: Stage, job_id: str, step: int, size: int = 1000) -> None:
    """Put a checkpoint where Ray Train does, as large as that beside its state."""
    folder = Path(stage.settings.storage_path) / job_id / f"checkpoint_2026-01-01_00-00-{step:03}"
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "weights").write_bytes(b"0" * size)
    (folder / "state.json").write_text(json.dumps({"step": step}))


def cut_off(stage: Stage, step: int) -> None:
    """Damage a stored checkpoint, as a copy that was never finished is."""
    for state in Path(stage.settings.storage_path).glob(f"*/*{step}/state.json"):
        state.write_text("{")


async def with_checkpoints(stage: Stage) -> str:
    job_id = await stage.started()
    run_id = stage.run_id(job_id)
    log = stage.mlflow.log
    log(run_id, RunMetric.LOSS, [(step, 3 / step) for step in range(1, 201)])
    log(run_id, RunMetric.EVAL_LOSS, [(80, 2.0), (160, 1.0)])
    log(run_id, RunMetric.CHECKPOINT_STEP, [(step, float(step)) for step in STEPS])
    for step in STEPS[2:]:
        store(stage, job_id, step)
    return job_id


async def test_checkpoints_are_listed_newest_first_with_their_losses(stage: Stage) -> None:
    job_id = await with_checkpoints(stage)

    answer = await stage.get(f"/v1/jobs/{job_id}/checkpoints")

    newest, *others = answer["data"]
    state_bytes = len(json.dumps({"step": 200}))
    assert newest == {
        "id": f"ckpt-{job_id.removeprefix('job-')}-200",
        "job_id": job_id,
        "step": 200,
        "created_at": "1970-01-01T00:00:03Z",
        "train_loss": 3 / 200,
        "eval_loss": 1.0,
        "is_kept": True,
        "size_bytes": 1000 + state_bytes,
        "model_version": None,
    }
    assert [each["step"] for each in others] == [150, 100, 50]
    assert [each["is_kept"] for each in others] == [True, False, False]
    assert [each["size_bytes"] for each in others[1:]] == [None, None]
    assert [each["eval_loss"] for each in others] == [2.0, 2.0, None]
    assert answer["has_more"] is False


async def test_checkpoints_come_in_pages(stage: Stage) -> None:
    job_id = await with_checkpoints(stage)
    path = f"/v1/jobs/{job_id}/checkpoints?limit=3"

    first = await stage.get(path)
    second = await stage.get(f"{path}&after={first['data'][-1]['id']}")

    assert [each["step"] for each in first["data"]] == [200, 150, 100]
    assert first["has_more"] is True
    assert [each["step"] for each in second["data"]] == [50]
    assert second["has_more"] is False


async def test_a_page_begins_at_a_checkpoint_of_the_job_alone(stage: Stage) -> None:
    job_id = await with_checkpoints(stage)
    digits = job_id.removeprefix("job-")

    for after in ("ckpt-0123456789abcdef-100", f"ckpt-{digits}-70", "none", f"ckpt-{digits}-1e2"):
        response = await stage.client.get(f"/v1/jobs/{job_id}/checkpoints?after={after}")
        assert (response.status_code, response.json()["code"]) == (404, "checkpoint-not-found")


async def test_the_model_version_is_that_of_the_last_checkpoint(stage: Stage) -> None:
    job_id = await with_checkpoints(stage)
    stage.succeed(job_id)
    await stage.work()

    listed = (await stage.get(f"/v1/jobs/{job_id}/checkpoints"))["data"]

    assert [each["model_version"] for each in listed] == ["models:/sums/3", None, None, None]


async def test_what_the_storage_holds_is_unknown_where_it_cannot_be_seen(stage: Stage) -> None:
    job_id = await with_checkpoints(stage)

    for elsewhere in ("/nowhere/checkpoints", "gopher://nowhere"):
        stage.parts.checkpoints._storage = CheckpointStorage(elsewhere)
        listed = (await stage.get(f"/v1/jobs/{job_id}/checkpoints"))["data"]
        assert {each["is_kept"] for each in listed} == {None}


async def test_a_checkpoint_that_is_half_there_is_not_kept(stage: Stage) -> None:
    job_id = await with_checkpoints(stage)
    cut_off(stage, 200)

    newest = (await stage.get(f"/v1/jobs/{job_id}/checkpoints"))["data"][0]

    assert newest["is_kept"] is False


async def test_a_job_without_checkpoints_has_an_empty_list(stage: Stage) -> None:
    waiting = await stage.submit()
    running = await stage.started()
    search = await stage.begin(await stage.search_spec())

    for job_id in (waiting, running, search):
        assert await stage.get(f"/v1/jobs/{job_id}/checkpoints") == {"data": [], "has_more": False}


async def test_a_loss_that_is_not_finite_is_null(stage: Stage) -> None:
    job_id = await stage.started()
    stage.mlflow.log(stage.run_id(job_id), RunMetric.LOSS, [(50, math.nan)])
    stage.mlflow.log(stage.run_id(job_id), RunMetric.CHECKPOINT_STEP, [(50, 50.0)])

    (listed,) = (await stage.get(f"/v1/jobs/{job_id}/checkpoints"))["data"]

    assert listed["train_loss"] is None


@pytest.mark.parametrize(
    ("is_away", "code"), [(True, "mlflow-unavailable"), (False, "run-not-found")]
)
async def test_without_its_run_a_job_has_no_list(stage: Stage, is_away: bool, code: str) -> None:
    job_id = await with_checkpoints(stage)
    stage.mlflow.is_away = is_away
    stage.mlflow.runs.clear()

    response = await stage.client.get(f"/v1/jobs/{job_id}/checkpoints")

    assert response.json()["code"] == code

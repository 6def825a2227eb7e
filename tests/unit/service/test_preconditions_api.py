"""ETags of jobs, and changes that ask for one."""

import pytest

from tests.unit.service.stage import Stage


async def test_every_answer_about_a_job_has_its_etag(stage: Stage) -> None:
    created = await stage.client.post("/v1/jobs", json=await stage.spec())
    path = created.headers["Location"]

    read = await stage.client.get(path)
    again = await stage.client.get(path)
    paused = await stage.client.post(f"{path}/pause")
    resumed = await stage.client.post(f"{path}/resume")
    cancelled = await stage.client.post(f"{path}/cancel")

    assert created.headers["ETag"] == read.headers["ETag"] == again.headers["ETag"] == '"1"'
    tags = [answer.headers["ETag"] for answer in (read, paused, resumed, cancelled)]
    assert len(set(tags)) == 4
    assert (await stage.client.get(path)).headers["ETag"] == tags[-1]


async def test_what_the_control_loop_changes_changes_the_etag(stage: Stage) -> None:
    job_id = await stage.submit()
    path = f"/v1/jobs/{job_id}"
    before = (await stage.client.get(path)).headers["ETag"]

    await stage.work()

    assert (await stage.client.get(path)).headers["ETag"] != before


@pytest.mark.parametrize("if_match", ['"1"', '"9", "1"', "*", None])
@pytest.mark.parametrize("verb", ["pause", "cancel"])
async def test_a_change_of_the_job_as_it_was_seen_is_made(
    stage: Stage, verb: str, if_match: str | None
) -> None:
    job_id = await stage.submit()
    headers = {"If-Match": if_match} if if_match else {}

    response = await stage.client.post(f"/v1/jobs/{job_id}/{verb}", headers=headers)

    assert response.status_code == 200


@pytest.mark.parametrize("if_match", ['"2"', 'W/"1"', "1", ""])
@pytest.mark.parametrize("verb", ["pause", "resume", "cancel"])
async def test_a_change_of_a_job_that_has_changed_is_refused(
    stage: Stage, verb: str, if_match: str
) -> None:
    job_id = await stage.submit()

    response = await stage.client.post(f"/v1/jobs/{job_id}/{verb}", headers={"If-Match": if_match})

    assert (response.status_code, response.json()["code"]) == (412, "precondition-failed")
    assert (await stage.job(job_id))["status"] == "queued"


async def test_a_paused_job_that_stays_so_keeps_its_etag(stage: Stage) -> None:
    job_id = await stage.submit()
    path = f"/v1/jobs/{job_id}/pause"
    first = (await stage.client.post(path)).headers["ETag"]

    second = await stage.client.post(path, headers={"If-Match": first})

    assert (second.status_code, second.headers["ETag"]) == (200, first)

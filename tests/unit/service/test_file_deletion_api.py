"""Data sets that are deleted: not while a job needs them, and no byte too many or too few."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from pydantic import TypeAdapter
from sqlalchemy import func, select, text, update

from jobs.specs import JobSpec
from service.callers import Scope
from service.contents import Contents
from service.database import Database
from service.errors import FileInUseError
from service.key_tokens import KeyToken
from service.submission import add_job, new_job, require_files
from service.tables import Leftover, utc_now
from tests.unit.service.fakes import Killed
from tests.unit.service.stage import ROWS, Stage, make_settings

ON_BOTH_DATABASES = True

OTHER = KeyToken("key-00000000000000cc", "C" * 43)
OTHER_HEADERS = {"Authorization": f"Bearer {OTHER.text}"}


def stored_files(stage: Stage) -> list[Path]:
    return [path for path in stage.settings.files_dir.rglob("*") if path.is_file()]


async def delete(stage: Stage, file_id: str) -> httpx.Response:
    return await stage.client.delete(f"/v1/files/{file_id}")


async def num_leftovers(stage: Stage) -> int:
    async with stage.parts.database.reading() as session:
        return await session.scalar(select(func.count()).select_from(Leftover)) or 0


async def sweep_all(stage: Stage) -> None:
    """Sweep as a service does long after."""
    async with stage.parts.database.writing() as session:
        await session.execute(update(Leftover).values(created_at=utc_now() - timedelta(days=1)))
    await stage.parts.validation.work_once()


async def test_a_deleted_file_is_gone_with_its_bytes(stage: Stage) -> None:
    file_id = await stage.upload()

    response = await delete(stage, file_id)

    assert (response.status_code, response.content) == (204, b"")
    assert (await stage.client.get(f"/v1/files/{file_id}")).status_code == 404
    assert (await delete(stage, file_id)).json()["code"] == "file-not-found"
    assert stored_files(stage) == []
    assert await num_leftovers(stage) == 0
    (entry,) = (await stage.get("/v1/audit?action=file.delete"))["data"]
    assert (entry["target"], entry["outcome"]) == (file_id, "done")


@pytest.mark.parametrize("ending", ["queued", "running", "paused"])
async def test_a_file_is_kept_while_a_job_that_has_not_ended_names_it(
    stage: Stage, ending: str
) -> None:
    file_id = await stage.upload()
    job_id = await stage.submit(train=file_id)
    if ending == "running":
        await stage.work()
    if ending == "paused":
        await stage.ask(job_id, "pause")
    assert (await stage.job(job_id))["status"] == ending

    response = await delete(stage, file_id)

    assert (response.status_code, response.json()["code"]) == (409, "file-in-use")
    assert job_id in response.json()["detail"]
    assert (await stage.client.get(f"/v1/files/{file_id}/content")).content == ROWS


async def test_a_few_of_many_jobs_are_named_the_oldest_first(stage: Stage) -> None:
    file_id = await stage.upload()
    jobs = [await stage.submit(train=file_id) for _ in range(5)]

    detail = (await delete(stage, file_id)).json()["detail"]

    assert f"{jobs[0]}, {jobs[1]}, {jobs[2]}, 2 more;" in detail


async def test_files_are_kept_wherever_a_spec_names_them(stage: Stage) -> None:
    spec = await stage.compare_spec()
    await stage.begin(spec)

    for file_id in (spec["data"]["train"], spec["tasks"][0]["data"]):
        assert (await delete(stage, file_id)).status_code == 409


async def test_a_file_can_be_deleted_once_its_jobs_have_ended_and_then_no_rerun_begins(
    stage: Stage,
) -> None:
    file_id = await stage.upload()
    job_id = await stage.submit(train=file_id)
    await stage.ask(job_id, "cancel")

    assert (await delete(stage, file_id)).status_code == 204
    rerun = await stage.client.post(f"/v1/jobs/{job_id}/rerun", json={})

    problem = rerun.json()
    assert (rerun.status_code, problem["code"]) == (404, "file-not-found")
    (error,) = problem["errors"]
    assert (error["field"], error["value"]) == ("data.train", file_id)


async def test_jobs_of_another_project_are_counted_and_not_named(stage: Stage) -> None:
    await stage.admit(OTHER, Scope.SUBMIT, project="theirs")
    upload = await stage.client.post(
        "/v1/files", files={"file": ("rows", ROWS)}, headers=OTHER_HEADERS
    )
    file_id = upload.json()["id"]
    job_id = await stage.submit(train=file_id)  # an administrator's, in another project

    response = await stage.client.delete(f"/v1/files/{file_id}", headers=OTHER_HEADERS)

    assert response.status_code == 409
    assert job_id not in response.text
    assert "1 of another project" in response.json()["detail"]


async def test_bytes_stay_as_long_as_a_record_of_any_project_shares_them(stage: Stage) -> None:
    await stage.admit(OTHER, Scope.SUBMIT, project="theirs")
    own_id = await stage.upload()
    files = {"file": ("rows", ROWS)}
    other = (await stage.client.post("/v1/files", files=files, headers=OTHER_HEADERS)).json()

    assert (await delete(stage, own_id)).status_code == 204

    path = f"/v1/files/{other['id']}/content"
    assert (await stage.client.get(path, headers=OTHER_HEADERS)).content == ROWS
    assert (await delete(stage, other["id"])).status_code == 204
    assert stored_files(stage) == []


async def test_a_submission_and_a_deletion_at_the_same_time_never_both_succeed(
    stage: Stage,
) -> None:
    outcomes = set()
    for number in range(12):
        row = {"instruction": f"Add {number}.", "output": "5"}
        file_id = await stage.upload(json.dumps(row).encode())
        spec = await stage.spec(train=file_id)
        requests = [stage.client.post("/v1/jobs", json=spec), delete(stage, file_id)]
        first, second = await asyncio.gather(*requests[:: 1 if number % 2 else -1])
        submitted, deleted = (first, second) if number % 2 else (second, first)
        outcomes.add((submitted.status_code, deleted.status_code))
        found = await stage.client.get(f"/v1/files/{file_id}/content")
        assert found.status_code == (200 if submitted.status_code == 201 else 404)

    assert outcomes <= {(201, 409), (404, 204)}


async def test_a_deletion_waits_for_a_submission_that_is_under_way(
    stage: Stage, database_url: str
) -> None:
    """Two replicas: the deletion comes after the submission has seen the file."""
    file_id = await stage.upload()
    spec: JobSpec = TypeAdapter(JobSpec).validate_python(await stage.spec(train=file_id))
    job = new_job(spec, "default", rerun_of=None, request=None)
    async with other_replica(database_url) as database:
        async with database.writing() as session:
            await require_files(session, spec, caller=None, lock=True)
            deletion = asyncio.create_task(stage.parts.files.delete(file_id))
            await until_a_writer_waits(stage.parts.database, deletion)
            await add_job(session, job, spec)

        with pytest.raises(FileInUseError, match=job.id):
            await deletion


@pytest.mark.parametrize("first", ["upload", "deletion"])
async def test_an_upload_of_bytes_that_are_being_deleted_keeps_them(
    stage: Stage, first: str
) -> None:
    known = await stage.upload()
    for _ in range(12):
        acts = [stage.upload(), delete(stage, known)]
        results = await asyncio.gather(*(acts if first == "upload" else acts[::-1]))
        new, deleted = results if first == "upload" else results[::-1]

        assert deleted.status_code == 204
        content = await stage.client.get(f"/v1/files/{new}/content")
        assert (content.status_code, content.content) == (200, ROWS)
        known = new
    assert len(stored_files(stage)) == 1
    assert await num_leftovers(stage) == 0


async def test_replicas_that_upload_and_delete_the_same_bytes_lose_none_and_leave_none(
    stage: Stage, tmp_path: Path, database_url: str
) -> None:
    async with Stage(make_settings(tmp_path, database_url=database_url)) as replica:

        async def come_and_go(where: Stage) -> None:
            for _ in range(10):
                file_id = await where.upload()
                content = await where.client.get(f"/v1/files/{file_id}/content")
                assert content.content == ROWS
                assert (await delete(where, file_id)).status_code == 204

        await asyncio.gather(*[come_and_go(where) for where in (stage, replica) for _ in range(3)])

    assert stored_files(stage) == []
    assert await num_leftovers(stage) == 0


async def test_bytes_that_a_killed_deletion_left_are_swept(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_id = await stage.upload()
    with monkeypatch.context() as patch:
        patch.setattr(Contents, "clear", kill)
        with pytest.raises(Killed):
            await stage.parts.files.delete(file_id)
    assert len(stored_files(stage)) == 1

    await stage.restart()
    await sweep_all(stage)

    assert stored_files(stage) == []
    assert await num_leftovers(stage) == 0


@pytest.mark.parametrize("is_known", [False, True], ids=["new bytes", "bytes of another file"])
async def test_bytes_that_a_killed_upload_left_are_swept_unless_another_file_has_them(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    known = [await stage.upload()] if is_known else []
    with monkeypatch.context() as patch:
        patch.setattr("service.files.record", kill)  # after the bytes are in their place
        with pytest.raises(Killed):
            await stage.parts.files.add("rows", pieces(ROWS))
    assert [path.name for path in stored_files(stage)] == [hashlib.sha256(ROWS).hexdigest()]

    await stage.restart()
    listed = (await stage.get("/v1/files"))["data"]
    await sweep_all(stage)

    assert [file["id"] for file in listed] == known
    assert len(stored_files(stage)) == len(known)
    assert await num_leftovers(stage) == 0


async def test_bytes_of_an_upload_that_is_under_way_are_not_swept(stage: Stage) -> None:
    async with stage.parts.database.writing() as session:
        stage.parts.contents.condemn(session, hashlib.sha256(ROWS).hexdigest())
    (stage.settings.files_dir / hashlib.sha256(ROWS).hexdigest()).write_bytes(ROWS)

    await stage.parts.validation.work_once()

    assert len(stored_files(stage)) == 1


async def test_bytes_that_cannot_be_removed_now_are_removed_later(stage: Stage) -> None:
    file_id = await stage.upload()
    (path,) = stored_files(stage)
    path.unlink()
    path.mkdir()  # what no unlink removes

    assert (await delete(stage, file_id)).status_code == 204
    assert await num_leftovers(stage) == 1

    path.rmdir()
    path.write_bytes(ROWS)
    await sweep_all(stage)

    assert stored_files(stage) == []
    assert await num_leftovers(stage) == 0


def kill(*_: object) -> None:
    raise Killed


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content


@asynccontextmanager
async def other_replica(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    try:
        yield database
    finally:
        await database.close()


async def until_a_writer_waits(database: Database, task: asyncio.Task[None]) -> None:
    """Return when a task waits for a lock of the database."""
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    async with database.reading() as session:
        is_postgres = session.get_bind().dialect.name == "postgresql"
    for number in range(3000):
        assert not task.done()
        if is_postgres:
            async with database.reading() as session:
                if await session.scalar(waiting):
                    return
        elif number == 10:  # SQLite tells nobody; it waits at BEGIN, since there is one writer
            return
        await asyncio.sleep(0.01)
    raise TimeoutError

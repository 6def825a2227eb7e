"""Data sets whose validation takes longer than their upload."""

import asyncio
import gzip
import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from service.file_states import FileStatus
from service.leases import Lease
from service.row_check import Verdict
from service.row_checks import RowChecks
from service.tables import LeaseRow, UploadedFile, utc_now
from service.validation import Validation
from tests.unit.service.stage import ROWS, Stage, field_errors, make_settings

ON_BOTH_DATABASES = True

BAD_ROWS = ROWS + b'{"instruction": "Add."}\n'


@pytest.fixture
async def stage(tmp_path: Path, database_url: str) -> AsyncIterator[Stage]:
    """A service that waits for no validation."""
    settings = make_settings(tmp_path, database_url=database_url, upload_wait_s=0)
    async with Stage(settings) as stage:
        yield stage


def stored_names(stage: Stage) -> list[str]:
    return [path.name for path in stage.settings.files_dir.rglob("*") if path.is_file()]


async def leave_validating(stage: Stage, content: bytes = ROWS) -> str:
    """What a service leaves that is killed while it validates a file; returns its id."""
    sha256 = hashlib.sha256(content).hexdigest()
    (stage.settings.files_dir / sha256).write_bytes(content)
    file = UploadedFile(
        id=f"file-{sha256[:16]}",
        project="default",
        filename="rows.jsonl",
        size_bytes=len(content),
        sha256=sha256,
        status=FileStatus.VALIDATING,
        created_at=utc_now(),
    )
    async with stage.parts.database.writing() as session:
        session.add(file)
    return file.id


async def validate(stage: Stage) -> None:
    """Let the service take up what waits."""
    await stage.parts.validation.work_once()
    await stage.parts.validation.finish()


@pytest.mark.parametrize("content", [ROWS * 2, gzip.compress(ROWS * 5000)], ids=["light", "heavy"])
async def test_a_long_validation_goes_on_after_the_answer(stage: Stage, content: bytes) -> None:
    response = await stage.client.post("/v1/files", files={"file": ("rows", content)})

    file = response.json()
    assert (response.status_code, file["status"]) == (201, "validating")
    assert "num_rows" not in {key for key, value in file.items() if value is not None}

    await stage.parts.validation.finish()

    validated = await stage.get(f"/v1/files/{file['id']}")
    assert (validated["status"], validated["problem"]) == ("ready", None)
    assert validated["num_rows"] == (2 if content.startswith(ROWS) else 5000)
    assert stored_names(stage) == [file["sha256"]]


async def test_a_file_that_ends_as_invalid_says_which_row_and_keeps_no_bytes(stage: Stage) -> None:
    response = await stage.client.post("/v1/files", files={"file": ("rows", BAD_ROWS)})
    file_id = response.json()["id"]
    await stage.parts.validation.finish()

    file = await stage.get(f"/v1/files/{file_id}")

    assert file["status"] == "invalid"
    assert file["problem"].startswith("line 2, output: is missing")
    (error,) = file["errors"]
    assert (error["line"], error["field"]) == (2, "output")
    assert stored_names(stage) == []
    content = await stage.client.get(f"/v1/files/{file_id}/content")
    assert (content.status_code, content.json()["code"]) == (410, "file-content-gone")
    assert "line 2, output" in content.json()["detail"]


async def test_files_are_listed_by_where_they_stand(stage: Stage) -> None:
    waiting = await leave_validating(stage)
    response = await stage.client.post("/v1/files", files={"file": ("rows", BAD_ROWS)})
    await stage.parts.validation.finish()

    for status, expected in [
        ("validating", [waiting]),
        ("invalid", [response.json()["id"]]),
        ("ready", []),
    ]:
        listed = await stage.get(f"/v1/files?status={status}")
        assert [file["id"] for file in listed["data"]] == expected
    assert (await stage.client.get("/v1/files?status=lost")).status_code == 422


@pytest.mark.parametrize(("content", "status"), [(ROWS, "ready"), (BAD_ROWS, "invalid")])
async def test_a_file_that_a_killed_service_left_is_validated_by_the_next(
    stage: Stage, content: bytes, status: str
) -> None:
    file_id = await leave_validating(stage, content)
    await stage.restart()

    await validate(stage)

    assert (await stage.get(f"/v1/files/{file_id}"))["status"] == status


async def test_a_file_whose_bytes_are_gone_ends_as_invalid(stage: Stage) -> None:
    file_id = await leave_validating(stage)
    (stage.settings.files_dir / hashlib.sha256(ROWS).hexdigest()).unlink()

    await validate(stage)

    file = await stage.get(f"/v1/files/{file_id}")
    assert file["status"] == "invalid"
    assert "no longer in storage; upload it again" in file["problem"]


async def test_a_file_in_another_replicas_hands_is_taken_up_once_that_is_silent(
    stage: Stage,
) -> None:
    file_id = await leave_validating(stage)
    assert await Lease(stage.parts.database, f"check-{file_id}", 3600).acquire()

    await validate(stage)
    assert (await stage.get(f"/v1/files/{file_id}"))["status"] == "validating"

    async with stage.parts.database.writing() as session:
        past = utc_now() - timedelta(seconds=1)
        await session.execute(update(LeaseRow).values(expires_at=past))
    await validate(stage)
    assert (await stage.get(f"/v1/files/{file_id}"))["status"] == "ready"


class CountedChecks(RowChecks):
    """Notes what it is asked to check."""

    begun: list[str]

    async def begin(self, path: Path) -> asyncio.Task[Verdict]:
        self.begun.append(path.name)
        return await super().begin(path)


async def test_replicas_that_start_together_validate_each_file_once(stage: Stage) -> None:
    contents = [ROWS * number for number in range(1, 7)]
    file_ids = [await leave_validating(stage, content) for content in contents]
    begun: list[str] = []
    replicas = []
    for _ in range(3):
        checks = CountedChecks(max_processes=6)
        checks.begun = begun
        parts = stage.parts
        replicas.append(Validation(parts.database, parts.contents, checks, lease_ttl_s=60))

    await asyncio.gather(*[replica.work_once() for replica in replicas])
    await asyncio.gather(*[replica.finish() for replica in replicas])

    assert sorted(begun) == sorted(hashlib.sha256(content).hexdigest() for content in contents)
    for file_id in file_ids:
        assert (await stage.get(f"/v1/files/{file_id}"))["status"] == "ready"


async def test_files_that_others_have_in_hand_do_not_hold_up_the_rest(tmp_path: Path) -> None:
    async with Stage(make_settings(tmp_path, max_validations=1)) as stage:
        held = await leave_validating(stage, ROWS)
        await Lease(stage.parts.database, f"check-{held}", 3600).acquire()
        free = await leave_validating(stage, ROWS * 2)

        await validate(stage)

        assert (await stage.get(f"/v1/files/{free}"))["status"] == "ready"


async def test_a_service_that_stops_leaves_its_files_to_others_at_once(stage: Stage) -> None:
    response = await stage.client.post("/v1/files", files={"file": ("rows", gzip.compress(ROWS))})
    file_id = response.json()["id"]
    await stage.restart()

    await validate(stage)

    assert (await stage.get(f"/v1/files/{file_id}"))["status"] == "ready"


async def test_a_file_can_be_deleted_while_it_is_validated(stage: Stage) -> None:
    response = await stage.client.post("/v1/files", files={"file": ("rows", BAD_ROWS)})

    deleted = await stage.client.delete(f"/v1/files/{response.json()['id']}")
    await stage.parts.validation.finish()

    assert deleted.status_code == 204
    assert (await stage.get("/v1/files"))["data"] == []
    assert stored_names(stage) == []


async def test_a_job_waits_in_the_queue_until_its_file_is_ready(stage: Stage) -> None:
    file_id = await leave_validating(stage)

    job_id = await stage.submit(train=file_id)
    await stage.work(3)

    assert (await stage.job(job_id))["status"] == "queued"
    assert await stage.messages(job_id) == [
        {"level": "info", "text": f"waits until the rows of {file_id} are validated"}
    ]
    assert stage.ray.requests == []

    await validate(stage)
    await stage.work()

    assert (await stage.job(job_id))["status"] == "running"
    assert len(await stage.messages(job_id)) == 1


async def test_a_job_that_waits_for_its_file_holds_up_no_other(
    tmp_path: Path, database_url: str
) -> None:
    settings = make_settings(tmp_path, database_url=database_url, max_live_drivers=1)
    async with Stage(settings) as stage:
        waits = await stage.submit(train=await leave_validating(stage, ROWS * 9))
        goes = await stage.submit()

        await stage.work(2)

        assert (await stage.job(goes))["status"] == "running"
        assert (await stage.job(waits))["status"] == "queued"


async def test_a_job_whose_file_ends_as_invalid_fails_with_the_row(stage: Stage) -> None:
    file_id = await leave_validating(stage, BAD_ROWS)
    job_id = await stage.submit(train=file_id)

    await validate(stage)
    await stage.work(2)

    job = await stage.job(job_id)
    assert job["status"] == "failed"
    assert job["failure"]["code"] == "data-invalid"
    assert (
        f"{file_id} (rows.jsonl) is not valid: line 2, output: is missing"
        in (job["failure"]["message"])
    )
    assert stage.ray.requests == []


async def test_a_job_that_waits_for_its_file_can_be_cancelled(stage: Stage) -> None:
    job_id = await stage.submit(train=await leave_validating(stage))

    assert (await stage.ask(job_id, "cancel"))["status"] == "cancelled"


@pytest.mark.parametrize("query", ["", "?dry_run=true"])
async def test_a_job_on_an_invalid_file_is_refused_with_field_and_row(
    stage: Stage, query: str
) -> None:
    file_id = await leave_validating(stage, BAD_ROWS)
    await validate(stage)

    response = await stage.client.post(f"/v1/jobs{query}", json=await stage.spec(train=file_id))

    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, "dataset-invalid")
    (error,) = problem["errors"]
    assert (error["field"], error["value"]) == ("data.train", file_id)
    assert field_errors(problem)["data.train"].startswith("line 2, output: is missing")
    assert problem["detail"].startswith(f"data.train: {file_id} (rows.jsonl) is not valid: line 2")


async def test_a_dry_run_on_a_file_that_is_being_validated_is_told_to_wait(stage: Stage) -> None:
    file_id = await leave_validating(stage)

    response = await stage.client.post(
        "/v1/jobs?dry_run=true", json=await stage.spec(train=file_id)
    )

    assert (response.status_code, response.json()["code"]) == (409, "file-not-ready")
    assert file_id in response.json()["detail"]

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError, StatementError

from service.database import Database
from service.errors import DatabaseUnavailableError
from service.events import Events
from service.file_states import FileStatus
from service.states import JobStatus
from service.tables import ApiKey, AuditEntry, Job, JobEvent, LeaseRow, UploadedFile, utc_now
from tests.unit.service.standing_lease import led_jobs

ON_BOTH_DATABASES = True


async def test_an_upgrade_keeps_what_is_there(database: Database) -> None:
    await database.upgrade()
    async with database.writing() as session:
        session.add(_file("file-1"))

    await database.upgrade()

    async with database.reading() as session:
        assert await session.get(UploadedFile, "file-1") is not None


async def test_an_older_service_tries_jobs_again_that_were_paused(database: Database) -> None:
    await database.upgrade()
    async with database.writing() as session:
        statuses = [JobStatus.PAUSED, JobStatus.PAUSING, JobStatus.SUCCEEDED]
        session.add_all([_job(number, status) for number, status in enumerate(statuses)])

    await database.migrate("0001")

    async with database.reading() as session:
        query = text("SELECT status FROM jobs ORDER BY id")
        assert (await session.scalars(query)).all() == ["queued", "running", "succeeded"]


async def test_jobs_of_an_older_service_have_never_been_paused(database: Database) -> None:
    await database.upgrade()
    await database.migrate("0001")
    columns = "id, kind, name, status, spec, attempt, created_at"
    values = "'job-1', 'finetune', 'n', 'running', '{}', 2, '2026-03-01 00:00:00.000000'"
    async with database.writing() as session:
        await session.execute(text(f"INSERT INTO jobs ({columns}) VALUES ({values})"))  # noqa: S608

    await database.upgrade()

    async with database.reading() as session:
        job = await session.get_one(Job, "job-1")
        assert (job.paused_attempt, job.data_summary) == (0, None)


async def test_an_older_service_works_without_the_summaries_of_the_data(database: Database) -> None:
    await database.upgrade()
    async with database.writing() as session:
        job = _job(1, JobStatus.PAUSED)
        job.data_summary = "100 rows"
        session.add(job)

    await database.migrate("0002")
    await database.upgrade()

    async with database.reading() as session:
        job = await session.get_one(Job, "job-1")
        assert (job.status, job.data_summary) == (JobStatus.PAUSED, None)


async def test_an_older_service_works_without_what_jobs_found(database: Database) -> None:
    await database.upgrade()
    async with database.writing() as session:
        job = _job(1, JobStatus.SUCCEEDED)
        job.summary = "tuned wins"
        session.add(job)

    await database.migrate("0004")
    await database.upgrade()

    async with database.reading() as session:
        job = await session.get_one(Job, "job-1")
        assert (job.status, job.summary) == (JobStatus.SUCCEEDED, None)


async def test_what_an_older_service_kept_belongs_to_the_default_project(
    database: Database,
) -> None:
    await database.upgrade()
    async with database.writing() as session:
        session.add(_file("file-1"))
        session.add(_key("key-1"))
        session.add(_entry("key-1"))

    await database.migrate("0006")
    await database.upgrade()

    async with database.reading() as session:
        file = await session.get_one(UploadedFile, "file-1")
        assert (file.project, file.filename) == ("default", "a")
        for table in (ApiKey, AuditEntry):
            assert await session.scalar(select(func.count()).select_from(table)) == 0


async def test_a_transaction_that_fails_changes_nothing(database: Database) -> None:
    await database.upgrade()

    async def fail_in_the_middle() -> None:
        async with database.writing() as session:
            session.add(_file("file-1"))
            await session.flush()
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        await fail_in_the_middle()

    async with database.reading() as session:
        assert await session.scalar(select(func.count()).select_from(UploadedFile)) == 0


async def test_writers_that_read_first_wait_for_each_other(database: Database) -> None:
    await database.upgrade()
    async with database.writing() as session:
        session.add(LeaseRow(name="count", holder="0", expires_at=utc_now()))

    async def increment() -> None:
        async with database.writing() as session:
            row = await session.get_one(LeaseRow, "count", with_for_update=True)
            await asyncio.sleep(0)
            row.holder = str(int(row.holder) + 1)

    await asyncio.gather(*(increment() for _ in range(20)))

    async with database.reading() as session:
        assert (await session.get_one(LeaseRow, "count")).holder == "20"


async def test_readers_do_not_wait_for_a_writer(database: Database) -> None:
    await database.upgrade()

    async with database.writing() as writer:
        writer.add(_file("file-1"))
        await writer.flush()
        async with database.reading() as reader:
            assert await reader.get(UploadedFile, "file-1") is None


async def test_a_reader_sees_one_state_of_the_database(database: Database) -> None:
    await database.upgrade()
    count = select(func.count()).select_from(UploadedFile)

    async with database.reading() as reader:
        assert await reader.scalar(count) == 0
        async with database.writing() as writer:
            writer.add(_file("file-1"))

        assert await reader.scalar(count) == 0


async def test_events_that_two_replicas_write_at_once_are_followed_in_order_and_none_is_missed(
    database: Database, database_url: str
) -> None:
    await database.upgrade()
    job = _job(0, JobStatus.RUNNING)
    job.id = "job-0123456789abcdef"
    async with database.writing() as session:
        session.add(job)
    replicas = [database, Database(database_url)]

    async def write(replica: Database, name: str) -> None:
        for step in range(20):
            await led_jobs(replica).note_progress(job.id, {"step": f"{name}{step}"})

    async def write_all() -> None:
        names = ["a", "b", "c", "d"]
        await asyncio.gather(*(write(replicas[i % 2], name) for i, name in enumerate(names)))
        await led_jobs(database).end(job.id, job.attempt, JobStatus.SUCCEEDED)

    async def follow() -> list[JobEvent]:
        return [event async for event in Events(replicas[1], 0.01).follow(job.id, 0)]

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write_all())
        following = tasks.create_task(follow())
    seen = following.result()
    stored, _ = await Events(database, 1).page(job.id, 0, 1000)
    await replicas[1].close()

    assert [event.id for event in seen] == [event.id for event in stored]
    assert len(seen) == 4 * 20 + 1
    assert seen[-1].data["status"] == "succeeded"
    for name in "abcd":
        own = [event.data["step"] for event in seen[:-1] if event.data["step"].startswith(name)]
        assert own == [f"{name}{step}" for step in range(20)]


async def test_only_errors_of_the_database_are_told_as_its_outage(database: Database) -> None:
    await database.upgrade()

    for session in (database.reading, database.writing):
        with pytest.raises(FileNotFoundError):
            async with session():
                raise FileNotFoundError("a file of the service's own")


@pytest.mark.parametrize("host", ["/no/such/folder", "127.0.0.1:1", "no-such-host.invalid"])
async def test_a_server_that_cannot_be_reached_is_an_outage(host: str) -> None:
    away = Database(f"postgresql+asyncpg://nobody@/none?host={host}")

    with pytest.raises(DatabaseUnavailableError):
        await away.ping()
    await away.close()


async def test_an_event_needs_its_job(database: Database) -> None:
    await database.upgrade()

    with pytest.raises(IntegrityError, match=r"(?i)foreign key"):
        async with database.writing() as session:
            session.add(JobEvent(job_id="none", created_at=utc_now(), type="status", data={}))


async def test_moments_come_back_in_utc(database: Database) -> None:
    await database.upgrade()
    moment = datetime(2026, 3, 1, 1, 30, tzinfo=timezone(timedelta(hours=2)))

    async with database.writing() as session:
        session.add(LeaseRow(name="lease", holder="me", expires_at=moment))

    async with database.reading() as session:
        stored = (await session.get_one(LeaseRow, "lease")).expires_at
    assert stored == moment
    assert stored.tzinfo is UTC


async def test_a_moment_without_a_zone_is_refused(database: Database) -> None:
    await database.upgrade()

    with pytest.raises(StatementError, match="with a time zone"):
        async with database.writing() as session:
            session.add(LeaseRow(name="lease", holder="me", expires_at=datetime(2026, 3, 1)))


async def test_sqlite_checks_foreign_keys_and_lets_readers_work_beside_a_writer(
    tmp_path: Path,
) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/jobs.db")
    await database.upgrade()

    async with database.reading() as session:
        assert await session.scalar(text("PRAGMA foreign_keys")) == 1
        assert await session.scalar(text("PRAGMA journal_mode")) == "wal"
        assert (await session.scalar(text("PRAGMA busy_timeout")) or 0) >= 5000
    await database.close()


def _file(file_id: str) -> UploadedFile:
    return UploadedFile(
        id=file_id,
        filename="a",
        size_bytes=1,
        sha256="0",
        num_rows=1,
        status=FileStatus.READY,
        created_at=utc_now(),
    )


def _job(number: int, status: JobStatus) -> Job:
    return Job(id=f"job-{number}", kind="k", name="n", status=status, spec={}, created_at=utc_now())


def _key(key_id: str) -> ApiKey:
    return ApiKey(id=key_id, name="n", project="p", scopes=["read"], hash="h", created_at=utc_now())


def _entry(key_id: str) -> AuditEntry:
    return AuditEntry(
        created_at=utc_now(),
        key_id=key_id,
        project="p",
        action="key.create",
        target=key_id,
        outcome="done",
    )

"""What becomes of data sets and of the jobs that name them when the tables of files change."""

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import column, table, text

from service.database import Database

ON_BOTH_DATABASES = True

TRAIN, SHOTS, GONE = (f"file-{digit * 16}" for digit in "abc")
SPEC = {
    "name": "sums",
    "data": {"train": TRAIN, "evaluation_sets": {"exam": "s3://bucket/rows"}},
    "tasks": [{"data": TRAIN, "shots": SHOTS}, {"data": GONE}],
}


async def run(database: Database, statement: str, **values: object) -> list[tuple[Any, ...]]:
    async with database.writing() as session:
        result = await session.execute(text(statement), values)
        return [tuple(row) for row in result] if result.returns_rows else []


async def add_job(database: Database, job_id: str, spec: object) -> None:
    await run(
        database,
        "INSERT INTO jobs (id, project, kind, name, status, spec, priority, revision, attempt,"
        " paused_attempt, num_restarts, created_at) VALUES (:id, 'default', 'evaluate', 'sums',"
        " 'queued', :spec, 0, 1, 0, 0, 0, '2026-01-01 00:00:00')",
        id=job_id,
        spec=json.dumps(spec),
    )


async def add_file(database: Database, file_id: str, **values: object) -> None:
    """Add a file with values in the columns that there are at the present revision."""
    row = {
        "id": file_id,
        "project": "default",
        "filename": "rows",
        "size_bytes": 5,
        "sha256": "abc",
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        **values,
    }
    files = table("files", *(column(name) for name in row))
    async with database.writing() as session:
        await session.execute(files.insert().values(row))


async def test_files_of_an_older_service_are_ready(database: Database) -> None:
    await database.migrate("0007")
    await add_file(database, TRAIN, num_rows=7)

    await database.migrate("0008")

    found = await run(database, "SELECT id, num_rows, status, fault FROM files")
    assert found == [(TRAIN, 7, "ready", None)]


async def test_files_that_jobs_of_an_older_service_name_are_known(database: Database) -> None:
    await database.migrate("0007")
    await add_job(database, "job-1", SPEC)
    await add_job(database, "job-2", {"name": "no files", "data": "s3://bucket/rows"})
    await add_job(database, "job-3", {"data": TRAIN})

    await database.migrate("0008")

    found = await run(database, "SELECT job_id, file_id FROM job_files ORDER BY job_id, file_id")
    assert found == [("job-1", TRAIN), ("job-1", SHOTS), ("job-1", GONE), ("job-3", TRAIN)]


async def test_an_older_service_gets_only_files_whose_rows_are_valid(database: Database) -> None:
    await database.migrate("0008")
    await add_file(database, TRAIN, num_rows=7, status="ready")
    await add_file(database, SHOTS, status="validating")
    await add_file(database, GONE, status="invalid")

    await database.migrate("0007")

    assert await run(database, "SELECT id, num_rows FROM files") == [(TRAIN, 7)]

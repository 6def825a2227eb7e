"""Uploads that the disk or the database refuses: nothing of them is visible, and nothing stays."""

import asyncio
import hashlib
import os
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine, event, text

from service.row_checks import RowChecks
from tests.unit.service.stage import ROWS, Stage

BIG = ROWS * 20_000
"""More rows than are read in a thread."""


def stored_files(stage: Stage) -> list[Path]:
    return [path for path in stage.settings.files_dir.rglob("*") if path.is_file()]


async def upload(stage: Stage, content: bytes = ROWS) -> httpx.Response:
    return await stage.client.post("/v1/files", files={"file": ("rows.jsonl", content)})


async def require_nothing_kept(stage: Stage) -> None:
    assert stored_files(stage) == []
    assert (await stage.get("/v1/files"))["data"] == []
    assert (await stage.get("/v1/audit?action=file.create"))["data"] == []
    async with stage.parts.database.reading() as session:
        assert (await session.execute(text("SELECT * FROM file_leftovers"))).all() == []


async def test_a_rename_that_the_disk_refuses_keeps_nothing(stage: Stage) -> None:
    target = stage.settings.files_dir / hashlib.sha256(ROWS).hexdigest()
    target.mkdir()  # nothing can be renamed to the name of a folder

    response = await upload(stage)

    assert (response.status_code, response.json()["code"]) == (503, "storage-unavailable")
    assert "Is a directory" in response.json()["detail"]
    target.rmdir()
    # The bytes could not be removed either, for the same reason: that is done later.
    await stage.parts.validation.work_once()
    assert stored_files(stage) == []
    assert (await stage.get("/v1/files"))["data"] == []
    assert (await upload(stage)).status_code == 201


async def test_a_disk_that_is_full_at_the_rename_keeps_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_self: Path, _target: Path) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        response = await upload(stage)

    assert (response.status_code, response.json()["code"]) == (507, "storage-full")
    await require_nothing_kept(stage)


async def test_a_database_that_is_full_at_the_record_keeps_nothing(stage: Stage) -> None:
    num_statements = 0

    def fill_up(connection: object, _cursor: object, statement: str, *_: object) -> None:
        """Let SQLite run out of pages just before the record."""
        nonlocal num_statements
        if statement.startswith("INSERT INTO files "):
            num_statements += 1
            connection.exec_driver_sql("PRAGMA max_page_count = 1")  # type: ignore[attr-defined]
            fill = "x" * 10_000_000
            connection.exec_driver_sql(  # type: ignore[attr-defined]
                "INSERT INTO file_leftovers VALUES ('filler', ?, '2026-01-01')", (fill,)
            )

    event.listen(Engine, "before_cursor_execute", fill_up)
    response = await upload(stage)
    event.remove(Engine, "before_cursor_execute", fill_up)

    assert num_statements == 1
    assert (response.status_code, response.json()["code"]) == (503, "database-unavailable")
    await require_nothing_kept(stage)


@pytest.mark.integration
async def test_a_check_that_is_killed_refuses_the_file_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(BIG * 20)
    before = children()
    check = await RowChecks(1).begin(path)
    while not (started := children() - before):
        await wait_a_moment()
    for pid in started:
        os.kill(pid, 9)

    verdict = await check

    assert verdict.num_rows is None
    assert verdict.problem is not None
    assert "ended by signal 9, most often because memory ran out" in verdict.problem


@pytest.mark.integration
async def test_a_check_that_is_given_up_leaves_no_process(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(BIG * 20)
    before = children()
    check = await RowChecks(1).begin(path)
    while not (started := children() - before):
        await wait_a_moment()

    check.cancel()
    await asyncio.wait({check})

    assert check.cancelled()
    assert not children() & started


def children() -> set[int]:
    """Processes that this one has started and not yet buried."""
    path = Path(f"/proc/{os.getpid()}/task")
    return {int(pid) for task in path.iterdir() for pid in (task / "children").read_text().split()}


async def wait_a_moment() -> None:
    await asyncio.sleep(0.01)

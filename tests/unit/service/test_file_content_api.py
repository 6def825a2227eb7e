"""Data sets as they are downloaded."""

import hashlib
import os
from collections.abc import AsyncIterator

import pytest

from tests.unit.service.stage import ROWS, Stage

CONTENT = ROWS * 3


async def test_a_file_is_downloaded_as_it_was_uploaded(stage: Stage) -> None:
    file_id = await stage.upload(CONTENT)

    response = await stage.client.get(f"/v1/files/{file_id}/content")

    assert response.status_code == 200
    assert response.content == CONTENT
    assert response.headers["ETag"] == f'"{hashlib.sha256(CONTENT).hexdigest()}"'
    assert response.headers["Content-Length"] == str(len(CONTENT))
    assert response.headers["Content-Type"] == "application/octet-stream"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("rows.jsonl", "rows.jsonl"),
        ('a"; filename=evil.exe', "a%22%3B%20filename%3Devil.exe"),
        ("Zeilen für später.jsonl", "Zeilen%20f%C3%BCr%20sp%C3%A4ter.jsonl"),
        ("行.jsonl", "%E8%A1%8C.jsonl"),
    ],
)
async def test_the_name_of_a_file_cannot_leave_its_place_in_the_header(
    stage: Stage, given: str, sent: str
) -> None:
    async def content() -> AsyncIterator[bytes]:
        yield ROWS

    file = await stage.parts.files.add(given, content())
    assert file.filename == given

    response = await stage.client.get(f"/v1/files/{file.id}/content")

    assert response.headers["Content-Disposition"] == f"attachment; filename*=UTF-8''{sent}"


@pytest.mark.parametrize(
    ("asked", "begin", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=10-", 10, len(CONTENT)),
        ("bytes=-5", len(CONTENT) - 5, len(CONTENT)),
        ("bytes=-100000", 0, len(CONTENT)),
        ("bytes=10-100000", 10, len(CONTENT)),
    ],
)
async def test_a_part_of_a_file_is_sent(stage: Stage, asked: str, begin: int, end: int) -> None:
    file_id = await stage.upload(CONTENT)

    response = await stage.client.get(f"/v1/files/{file_id}/content", headers={"Range": asked})

    assert response.status_code == 206
    assert response.content == CONTENT[begin:end]
    assert response.headers["Content-Range"] == f"bytes {begin}-{end - 1}/{len(CONTENT)}"


@pytest.mark.parametrize(
    "headers",
    [
        {"Range": "bytes=0-1,3-4"},
        {"Range": "bytes=-"},
        {"Range": "bytes=5-2"},
        {"Range": "rows=1-2"},
        {"Range": "nonsense"},
        {"Range": "bytes=0-1", "If-Range": '"of another file"'},
    ],
)
async def test_a_range_that_is_not_served_gets_the_whole_file(
    stage: Stage, headers: dict[str, str]
) -> None:
    file_id = await stage.upload(CONTENT)

    response = await stage.client.get(f"/v1/files/{file_id}/content", headers=headers)

    assert response.status_code == 200
    assert response.content == CONTENT


async def test_a_download_is_resumed_while_the_file_is_the_same(stage: Stage) -> None:
    file_id = await stage.upload(CONTENT)
    etag = f'"{hashlib.sha256(CONTENT).hexdigest()}"'

    response = await stage.client.get(
        f"/v1/files/{file_id}/content", headers={"Range": "bytes=7-", "If-Range": etag}
    )

    assert (response.status_code, response.content) == (206, CONTENT[7:])


@pytest.mark.parametrize("asked", [f"bytes={len(CONTENT)}-", "bytes=-0"])
async def test_a_part_behind_the_end_is_refused(stage: Stage, asked: str) -> None:
    file_id = await stage.upload(CONTENT)

    response = await stage.client.get(f"/v1/files/{file_id}/content", headers={"Range": asked})

    assert response.status_code == 416
    assert response.json()["code"] == "range-not-satisfiable"
    assert response.headers["Content-Range"] == f"bytes */{len(CONTENT)}"


@pytest.mark.parametrize("is_damaged", [False, True])
async def test_bytes_that_are_gone_are_told_of(stage: Stage, is_damaged: bool) -> None:
    file_id = await stage.upload(CONTENT)
    path = stage.settings.files_dir / hashlib.sha256(CONTENT).hexdigest()
    if is_damaged:
        os.truncate(path, 10)
    else:
        path.unlink()

    response = await stage.client.get(f"/v1/files/{file_id}/content")

    assert (response.status_code, response.json()["code"]) == (410, "file-content-gone")
    assert "upload it again" in response.json()["detail"]


async def test_an_unknown_file_has_no_content(stage: Stage) -> None:
    response = await stage.client.get("/v1/files/file-0123456789abcdef/content")

    assert (response.status_code, response.json()["code"]) == (404, "file-not-found")

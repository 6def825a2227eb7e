import asyncio
import errno
import gzip
import hashlib
import io
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.unit.service.stage import ROW, ROWS, Stage, make_settings

ON_BOTH_DATABASES = True


async def upload(
    stage: Stage, content: bytes, filename: str = "rows.jsonl", **fields: Any
) -> httpx.Response:
    return await stage.client.post("/v1/files", files={"file": (filename, content)}, data=fields)


def parquet(rows: Sequence[dict[str, Any]], **options: Any) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(list(rows)), file, **options)
    return file.getvalue()


def stored_files(stage: Stage) -> list[Path]:
    return [path for path in stage.settings.files_dir.rglob("*") if path.is_file()]


async def test_an_upload_is_kept_byte_for_byte_under_its_digest(stage: Stage) -> None:
    content = ROWS * 3

    response = await upload(stage, content)

    file = response.json()
    assert response.status_code == 201
    assert (file["filename"], file["size_bytes"], file["num_rows"]) == (
        "rows.jsonl",
        len(content),
        3,
    )
    assert file["sha256"] == hashlib.sha256(content).hexdigest()
    (path,) = stored_files(stage)
    assert path.name == file["sha256"]
    assert path.read_bytes() == content
    assert await stage.get(f"/v1/files/{file['id']}") == file


async def test_the_same_content_twice_is_two_records_and_one_stored_file(stage: Stage) -> None:
    first, second = (await upload(stage, ROWS)).json(), (await upload(stage, ROWS)).json()

    assert first["id"] != second["id"]
    assert first["sha256"] == second["sha256"]
    assert len(stored_files(stage)) == 1


async def test_a_compressed_upload_is_validated_and_kept_as_it_is(stage: Stage) -> None:
    content = gzip.compress(ROWS * 2)

    file = (await upload(stage, content, "rows.jsonl.gz")).json()

    assert file["num_rows"] == 2
    assert stored_files(stage)[0].read_bytes() == content


CHAT = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "4"},
    ]
}
COMPLETION = {"prompt": "2 + 2 =", "completion": " 4"}


@pytest.mark.parametrize("row", [ROW, CHAT, COMPLETION], ids=["instruction", "chat", "completion"])
@pytest.mark.parametrize("form", ["json", "parquet"])
@pytest.mark.parametrize(
    ("filename", "content_type"),
    [
        ("rows.jsonl", "application/octet-stream"),
        ("rows.parquet", "application/vnd.apache.parquet"),
        ("rows", "text/plain"),
    ],
)
async def test_rows_are_known_by_their_bytes_and_not_by_the_name_or_type_of_the_file(
    stage: Stage, row: dict[str, Any], form: str, filename: str, content_type: str
) -> None:
    content = parquet([row] * 3) if form == "parquet" else (json.dumps(row) + "\n").encode() * 3

    files = {"file": (filename, content, content_type)}
    response = await stage.client.post("/v1/files", files=files)

    file = response.json()
    assert response.status_code == 201, response.text
    assert (file["filename"], file["num_rows"]) == (filename, 3)
    assert stored_files(stage)[0].read_bytes() == content


async def test_a_file_may_hold_rows_of_several_forms(stage: Stage) -> None:
    content = b"".join(json.dumps(row).encode() + b"\n" for row in (ROW, CHAT, COMPLETION))

    assert (await upload(stage, content)).json()["num_rows"] == 3


@pytest.mark.parametrize(
    ("content", "row", "field", "message"),
    [
        (parquet([ROW, {"instruction": "Add."}]), 2, "output", "is missing"),
        (parquet([{"instruction": "Add.", "output": 5}]), 1, "output", "is not text"),
        (
            parquet([CHAT, {"messages": CHAT["messages"][:2]}]),
            2,
            "row",
            "ends with a turn of the user",
        ),
        (parquet([{"question": "Add."}]), 1, "row", "has the columns question; a row has"),
        (parquet([ROW])[:-20], 1, "row", "Parquet file is damaged"),
        (parquet([ROW, {**ROW, "output": "a" * 1024**2}]), 2, "row", "longer than 1048576 bytes"),
        (parquet([]), 1, "row", "no row"),
    ],
    ids=["missing", "number", "chat", "columns", "cut", "long", "empty"],
)
async def test_a_bad_row_of_a_parquet_file_is_named_by_its_number(
    stage: Stage, content: bytes, row: int, field: str, message: str
) -> None:
    response = await upload(stage, content, "rows.parquet")

    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, "dataset-invalid")
    (error,) = problem["errors"]
    assert (error["line"], error["field"]) == (row, field)
    assert message in error["message"]
    assert stored_files(stage) == []


@pytest.mark.parametrize(
    ("content", "line", "field", "message"),
    [
        (ROWS + b"{not json}\n", 2, "row", "is no JSON"),
        (ROWS + b'{"instruction": "Add."}\n', 2, "output", "is missing"),
        (ROWS + b'\n{"instruction": "", "output": "5"}\n', 3, "instruction", "is empty"),
        (ROWS + b'{"instruction": "Add.", "output": 5}\n', 2, "output", "is not text"),
        (ROWS + b'["a", "list"]\n', 2, "row", "is no JSON object"),
        (ROWS + b"\xff\xfe\x00\n", 2, "row", "is not UTF-8"),
        (bytes(range(128, 256)) * 32, 1, "row", "is not UTF-8"),
        (gzip.compress(ROWS)[:-9], 2, "row", "damaged"),
        (b"", 1, "row", "no row"),
        (b"\n\n", 1, "row", "no row"),
        (b'{"instruction": "' + b"a" * 1024**2 + b'", "output": "b"}', 1, "row", "longer than"),
    ],
    ids=[
        "broken-json",
        "missing-field",
        "empty-field",
        "number",
        "list",
        "not-utf8",
        "random-bytes",
        "cut-gzip",
        "empty-file",
        "blank-lines",
        "long-line",
    ],
)
async def test_a_data_set_with_a_bad_row_is_refused_with_line_and_field(
    stage: Stage, content: bytes, line: int, field: str, message: str
) -> None:
    response = await upload(stage, content)

    problem = response.json()
    assert response.status_code == 422
    assert problem["code"] == "dataset-invalid"
    (error,) = problem["errors"]
    assert (error["line"], error["field"]) == (line, field)
    assert message in error["message"]
    assert f"line {line}" in problem["detail"]
    assert stored_files(stage) == []
    assert (await stage.get("/v1/files"))["data"] == []


QUESTIONS = [
    b'{"instruction": "Add 2 and 3.", "answer": 5}',
    b'{"prompt": "The capital of France is", "answer": ["Paris", "Paris, France"]}',
    b'{"messages": [{"role": "user", "content": "2 + 2?"}], "answer": "4"}',
]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
async def test_rows_to_be_judged_by_need_no_output(
    stage: Stage, pack: Callable[[bytes], bytes]
) -> None:
    response = await upload(stage, pack(b"\n".join([*QUESTIONS, ROWS])))

    assert response.status_code == 201, response.text
    assert response.json()["num_rows"] == 4


@pytest.mark.parametrize(
    ("row", "field", "message"),
    [
        (b'{"instruction": "Add.", "answer": []}', "answer", "is an empty list"),
        (b'{"instruction": "Add.", "answer": {"a": 1}}', "answer", "give a text, a number"),
        (b'{"instruction": "", "answer": 4}', "instruction", "is empty"),
        (b'{"answer": 4}', "instruction", "is missing"),
    ],
)
async def test_a_bad_row_to_be_judged_by_is_refused(
    stage: Stage, row: bytes, field: str, message: str
) -> None:
    response = await upload(stage, ROWS + row)

    (error,) = response.json()["errors"]
    assert (error["line"], error["field"]) == (2, field)
    assert message in error["message"]


async def test_a_file_larger_than_accepted_is_refused_while_it_arrives(tmp_path: Path) -> None:
    num_chunks_sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal num_chunks_sent
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(1000):
            yield ROWS
            num_chunks_sent += 1
        yield b"\r\n--b--\r\n"

    async with Stage(make_settings(tmp_path, max_upload_bytes=10 * len(ROWS))) as stage:
        response = await stage.client.post(
            "/v1/files",
            content=body(),
            headers={"Content-Type": "multipart/form-data; boundary=b"},
        )

        assert response.status_code == 413
        assert response.json()["code"] == "upload-too-large"
        assert num_chunks_sent < 20
        assert stored_files(stage) == []


async def test_a_file_of_exactly_the_largest_size_is_accepted(tmp_path: Path) -> None:
    async with Stage(make_settings(tmp_path, max_upload_bytes=len(ROWS))) as stage:
        assert (await upload(stage, ROWS)).status_code == 201
        assert (await upload(stage, ROWS + b"\n")).status_code == 413


async def test_an_upload_that_breaks_off_leaves_nothing(stage: Stage) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        yield ROWS

    response = await stage.client.post(
        "/v1/files", content=body(), headers={"Content-Type": "multipart/form-data; boundary=b"}
    )

    assert response.status_code == 422
    assert response.json()["code"] == "upload-malformed"
    assert stored_files(stage) == []


async def test_an_upload_in_progress_is_not_visible(stage: Stage) -> None:
    arrived, may_end = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        yield ROWS
        arrived.set()
        await may_end.wait()
        yield b"\r\n--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    request = asyncio.create_task(stage.client.post("/v1/files", content=body(), headers=headers))
    await arrived.wait()

    assert (await stage.get("/v1/files"))["data"] == []
    digest = hashlib.sha256(ROWS).hexdigest()
    assert digest not in {path.name for path in stored_files(stage)}
    may_end.set()
    assert (await request).status_code == 201


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (ROWS, {}),
        (ROWS, {"Content-Type": "application/jsonl"}),
        (ROWS, {"Content-Type": "multipart/form-data"}),
        (ROWS, {"Content-Type": "multipart/form-data; boundary=b"}),
        (b"--b\r\n\r\n--b--\r\n", {"Content-Type": "multipart/form-data; boundary=b"}),
        (b"", {"Content-Type": "multipart/form-data; boundary=b"}),
    ],
    ids=["no-type", "plain-body", "no-boundary", "no-parts", "no-name", "empty"],
)
async def test_a_body_that_is_no_upload_is_explained(
    stage: Stage, content: bytes, headers: dict[str, str]
) -> None:
    response = await stage.client.post("/v1/files", content=content, headers=headers)

    assert response.status_code == 422
    assert response.json()["code"] == "upload-malformed"
    assert "curl -F" in response.json()["detail"]


async def test_an_upload_names_its_purpose_or_leaves_it_out(stage: Stage) -> None:
    assert (await upload(stage, ROWS, purpose="fine-tune")).status_code == 201

    response = await upload(stage, ROWS, purpose="assistants")

    assert response.status_code == 422
    assert "purpose must be fine-tune" in response.json()["detail"]


async def test_two_files_in_one_upload_are_refused(stage: Stage) -> None:
    files = [("file", ("a", ROWS)), ("file", ("b", ROWS))]

    response = await stage.client.post("/v1/files", files=files)

    assert response.json()["code"] == "upload-malformed"
    assert stored_files(stage) == []


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\data\\rows.jsonl", "rows.jsonl"),
        ("rows\x07.jsonl", "rows.jsonl"),
        ("Zeilen für später.jsonl", "Zeilen für später.jsonl"),
        ("x" * 300, "x" * 255),
        ("..", "rows.jsonl"),
    ],
)
async def test_the_name_of_a_file_is_only_ever_shown(stage: Stage, given: str, shown: str) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="'
        + given.encode()
        + b'"\r\n\r\n'
        + ROWS
        + b"\r\n--b--\r\n"
    )
    headers = {"Content-Type": "multipart/form-data; boundary=b"}

    file = (await stage.client.post("/v1/files", content=body, headers=headers)).json()

    assert file["filename"] == shown
    assert stored_files(stage)[0].parent == stage.settings.files_dir


async def test_a_full_disk_is_a_problem_with_a_name(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)

    response = await upload(stage, ROWS)

    assert response.status_code == 507
    assert response.json()["code"] == "storage-full"
    assert stored_files(stage) == []


async def test_files_are_listed_newest_first_page_by_page(stage: Stage) -> None:
    uploaded = [await stage.upload(json.dumps(ROW | {"n": n}).encode()) for n in range(3)]

    first = await stage.get("/v1/files?limit=2")
    second = await stage.get(f"/v1/files?limit=2&after={first['data'][-1]['id']}")

    assert [file["id"] for file in first["data"] + second["data"]] == uploaded[::-1]
    assert (first["has_more"], second["has_more"]) == (True, False)


async def test_an_unknown_file_is_not_found(stage: Stage) -> None:
    unknown = ("/file-0123456789abcdef", "/%00", "/%F0%9F", "?after=nonsense", "?after=%00")
    for path in (f"/v1/files{id_}" for id_ in unknown):
        response = await stage.client.get(path)

        assert response.status_code == 404
        assert response.json()["code"] == "file-not-found"


async def test_what_a_killed_upload_left_is_removed_at_the_next_start(stage: Stage) -> None:
    incoming = stage.settings.files_dir / "incoming"
    old, young = incoming / "old", incoming / "young"
    for path in (old, young):
        path.write_bytes(b"half a f")
    yesterday = time.time() - 25 * 3600
    os.utime(old, (yesterday, yesterday))

    await stage.restart()

    assert stored_files(stage) == [young]

"""Data sets that were made to break the service, fill it or run in it: refused, and not kept."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import tarfile
import zipfile
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.unit.service.stage import ROWS, Stage

MIB = 1 << 20
NO_TEXTS = pa.array([], pa.string())
TRUE_ROW = {"instruction": "1 + 1", "output": "2"}


def row(**fields: Any) -> bytes:
    return json.dumps(TRUE_ROW | fields).encode() + b"\n"


def text(output: str) -> bytes:
    """A row whose output is JSON as it stands."""
    return b'{"instruction": "1 + 1", "output": %s}\n' % output.encode()


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(columns), file, **options)
    return file.getvalue()


def zipped(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def tarred(name: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return file.getvalue()


UPLOADS = {
    # what unpacks to far more than was sent
    "gzip of zeros": gzip.compress(bytes(64 * MIB)),
    "gzip of blank lines": gzip.compress(b"\n" * (6 * MIB)),
    "gzip of one row many times": gzip.compress(row() * (12 * MIB // len(row()))),
    "gzip in gzip": gzip.compress(gzip.compress(ROWS)),
    "gzip cut short": gzip.compress(ROWS)[:-6],
    "gzip with a false checksum": gzip.compress(ROWS)[:-8] + bytes(8),
    "gzip header alone": b"\x1f\x8b\x08\x00",
    "zip bomb": zipped("rows.jsonl", bytes(16 * MIB)),
    "zip with a path": zipped("../../etc/cron.d/job", ROWS),
    "tar with a path": tarred("../../etc/passwd"),
    "bzip2": bz2.compress(ROWS),
    "xz": lzma.compress(ROWS),
    "Parquet that repeats a long text": parquet(
        {"instruction": ["a" * 2 * MIB] * 50, "output": ["b"] * 50}
    ),
    # Parquet that is none, or holds no rows
    "Parquet's first bytes": b"PAR1",
    "Parquet cut short": parquet({"instruction": ["a"], "output": ["b"]})[:-20],
    "Parquet with a huge footer": b"PAR1" + b"\xff\xff\xff\x7fPAR1",
    "Parquet with a negative footer": b"PAR1" + b"\xff\xff\xff\xffPAR1",
    "Parquet without rows": parquet({"instruction": NO_TEXTS, "output": NO_TEXTS}),
    "Parquet with other columns": parquet({"__class__": ["os.system"], "x": ["id"]}),
    "Parquet of bytes": parquet({"instruction": [b"\xff\xfe"], "output": [b"\x80"]}),
    "Parquet of nested lists": parquet({"instruction": [[["a"]]], "output": ["b"]}),
    "Parquet of maps": parquet({"instruction": [{"a": 1}], "output": ["b"]}),
    "Parquet of nulls": parquet({"instruction": [None], "output": [None]}),
    # JSON at its limits
    "arrays 100 000 deep": text("[" * 100_000 + "]" * 100_000),
    "objects 10 000 deep": text('{"a":' * 10_000 + "1" + "}" * 10_000),
    "arrays without end": b"[" * 500_000,
    "a number too large": text("1e999"),
    "an integer of 100 000 digits": text("9" * 100_000),
    "NaN": text("NaN"),
    "Infinity": text("-Infinity"),
    "half a surrogate pair": text('"\\ud800"'),
    "an escaped NUL": text('"a\\u0000b"'),
    "a raw NUL": b'{"instruction": "a\x00", "output": "b"}\n',
    "an unfinished escape": text('"\\u00"'),
    "a raw line feed in a text": b'{"instruction": "a\nb", "output": "c"}\n',
    "single quotes": b"{'instruction': 'a', 'output': 'b'}\n",
    "a comment": b'// rows\n{"instruction": "a", "output": "b"}\n',
    "an array of rows": b"[" + row().strip() + b"]",
    "a text": b'"rows"\n',
    "null": b"null\n",
    "two rows on a line": row().strip() + row(),
    "a row across two lines": b'{"instruction": "a",\n"output": "b"}\n',
    "a line of two MiB": row(output="a" * 2 * MIB),
    "a key of two MiB": row(**{"a" * 2 * MIB: 1}),
    "a good row before a bad one": row() * 50 + b"{}\n",
    # texts that are no UTF-8
    "UTF-16": row().decode().encode("utf-16"),
    "UTF-32": row().decode().encode("utf-32"),
    "Latin-1": row().replace(b"1 + 1", b"caf\xe9"),
    "an overlong slash": row().replace(b"1 + 1", b"\xc0\xaf"),
    "an encoded surrogate": row().replace(b"1 + 1", b"\xed\xa0\x80"),
    "a second byte order mark": b"\xef\xbb\xbf\xef\xbb\xbf" + row(),
    "a byte order mark in the middle": row() + b"\xef\xbb\xbf" + row(),
    # rows of the wrong form
    "nothing": b"",
    "white space": b" \t\r\n\n\x0c",
    "an empty object": b"{}\n",
    "prototype keys alone": b'{"__proto__": {"output": "b"}, "constructor": "a"}\n',
    "a number for a text": row(output=5),
    "a list for a text": row(output=["b"]),
    "an object for a text": row(output={"$gt": ""}),
    "white space for a text": row(output=" \N{NO-BREAK SPACE}\n"),
    "an unknown role": b'{"messages": [{"role": "tool", "content": "a"}]}\n',
    "no turns": b'{"messages": []}\n',
    "a million turns without an answer": b'{"messages": [%s]}\n' % b",".join([b"0"] * 400_000),
    "parts for a content": b'{"messages": [{"role": "user", "content": [{"type": "text"}]}]}\n',
    # other kinds of file
    "a pickle": pickle.dumps({"instruction": "a"}),
    "a page": b"<html><script>alert(1)</script></html>",
    "a program": b"\x7fELF\x02\x01\x01" + bytes(64),
    "a script": b"#!/bin/sh\nrm -rf /\n",
    "a table": b"instruction,output\n=cmd|' /C calc'!A0,b\n",
    "YAML that builds objects": b"!!python/object/apply:os.system ['id']\n",
    "XML with entities": b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
}


@pytest.mark.parametrize("content", UPLOADS.values(), ids=UPLOADS.keys())
async def test_a_hostile_data_set_is_refused(unmoved: Stage, content: bytes) -> None:
    response = await unmoved.client.post("/v1/files", files={"file": ("rows.jsonl", content)})
    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, "dataset-invalid"), problem
    assert len(response.content) < 4096, "what was sent is not sent back"


HARMLESS = {
    "prototype keys": row(__proto__={"admin": True}, constructor="x", hasOwnProperty=1),
    "a key given twice": b'{"instruction": "a", "output": "b", "output": "c"}\n',
    "markup": row(output="<script>alert(1)</script>"),
    "a template": row(output="{{ config.__class__ }} {% import os %} ${7*7} #{7*7}"),
    "a shell command": row(output="$(rm -rf /); `id` | tee /etc/passwd && :(){ :|:& };:"),
    "SQL": row(output="'); DROP TABLE files; --"),
    "control characters": row(output="\x07\x1b[2J\x7f\u202e"),
    "letters beside letters": row(output="\u0430\u0301\u200d\ufeff" * 1000),
    "one byte order mark": b"\xef\xbb\xbf" + row(),
    "carriage returns": row().replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("content", HARMLESS.values(), ids=HARMLESS.keys())
async def test_what_only_looks_dangerous_is_kept_byte_for_byte(
    stage: Stage, content: bytes
) -> None:
    file_id = await stage.upload(content)
    answer = await stage.client.get(f"/v1/files/{file_id}/content")
    assert answer.content == content
    assert answer.headers["Content-Disposition"].startswith("attachment")


NAMES = {
    "../../etc/passwd": "passwd",
    "..\\..\\boot.ini": "boot.ini",
    "/etc/passwd": "passwd",
    "C:\\rows.jsonl": "rows.jsonl",
    "..": "rows.jsonl",
    "a\u202egpj.exe": "agpj.exe",
    "$(id).jsonl": "$(id).jsonl",
    "'; DROP TABLE files; --": "'; DROP TABLE files; --",
    "a" * 3000: "a" * 255,
    "": "rows.jsonl",
}


@pytest.mark.parametrize(("given", "shown"), NAMES.items(), ids=[name[:20] for name in NAMES])
async def test_the_name_of_a_file_names_nothing_on_disk(
    stage: Stage, given: str, shown: str
) -> None:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n%s\r\n--x--\r\n'
    )
    response = await stage.client.post(
        "/v1/files",
        content=body % (given.replace("\\", "\\\\").encode(), ROWS),
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    assert response.json()["filename"] == shown
    assert {path.parent for path in stage.settings.files_dir.rglob("*") if path.is_file()} == {
        stage.settings.files_dir
    }

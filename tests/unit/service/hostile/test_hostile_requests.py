"""Parameters, headers and forms that were made to be taken for something else."""

import pytest

from tests.unit.service.stage import ROWS, TOKEN, Stage

QUERIES = {
    "a wildcard for a name": "/v1/jobs?name=%25",
    "an end of a text for a name": "/v1/jobs?name='%20OR%20'1'='1",
    "a statement for a project": "/v1/jobs?project=a;DROP%20TABLE%20jobs",
    "a quote in a tag": "/v1/jobs?tag=a'--",
    "a NUL in a tag": "/v1/jobs?tag=a%00",
    "a slash in a key": "/v1/jobs?metadata[a/b]=c",
    "a quote in a key": "/v1/jobs?metadata[a']=c",
    "a NUL in a value": "/v1/jobs?metadata[a]=b%00",
    "a long value": "/v1/jobs?metadata[a]=" + "b" * 600,
    "an unknown status": "/v1/jobs?status=queued'",
    "an unknown kind": "/v1/jobs?kind=__class__",
    "no limit": "/v1/jobs?limit=0",
    "a negative limit": "/v1/jobs?limit=-1",
    "a limit beyond 64 bits": "/v1/jobs?limit=99999999999999999999",
    "a limit in floats": "/v1/jobs?limit=1e2",
    "NaN for a limit": "/v1/jobs?limit=NaN",
    "other digits for a limit": "/v1/files?limit=%D9%A1%D9%A1x",
    "a negative event": "/v1/jobs/job-0000000000000000/events?after=-1",
    "an event beyond 64 bits": "/v1/jobs/job-0000000000000000/events?after=9223372036854775808",
    "an attempt of zero": "/v1/jobs/job-0000000000000000/logs?attempt=0",
}


@pytest.mark.parametrize("path", QUERIES.values(), ids=QUERIES.keys())
async def test_a_hostile_parameter_is_refused(unmoved: Stage, path: str) -> None:
    response = await unmoved.client.get(path)
    assert (response.status_code, response.json()["code"]) == (422, "request-invalid")


UNKNOWN = {
    "a path for a job": ("/v1/jobs/..%2f..%2fetc", "job-not-found"),
    "a NUL for a job": ("/v1/jobs/%00", "job-not-found"),
    "a wildcard for a job": ("/v1/jobs/job-%25", "job-not-found"),
    "an end of a text for a job": ("/v1/jobs/' OR 1=1 --", "job-not-found"),
    "half a letter for a job": ("/v1/jobs/%ff%fe", "job-not-found"),
    "a long job": ("/v1/jobs/" + "a" * 5000, "job-not-found"),
    "a job that is the last known": ("/v1/jobs?after=' OR 1=1 --", "job-not-found"),
    "a NUL that is the last known": ("/v1/jobs?after=%00", "job-not-found"),
    "a path for a file": ("/v1/files/..%2fhyplora.db", "file-not-found"),
    "a NUL for a file": ("/v1/files/%00", "file-not-found"),
    "a file that is the last known": ("/v1/files?after=%00", "file-not-found"),
    "a file's bytes upwards": ("/v1/files/..%2f..%2ftoken/content", "file-not-found"),
}


@pytest.mark.parametrize(("path", "code"), UNKNOWN.values(), ids=UNKNOWN.keys())
async def test_a_hostile_id_is_not_found(unmoved: Stage, path: str, code: str) -> None:
    response = await unmoved.client.get(path)
    assert response.status_code == 404
    assert response.json()["code"] in {code, "not-found"}, "a slash may leave every route"


KEYS = {
    "none": "",
    "no scheme": TOKEN,
    "another scheme": f"Basic {TOKEN}",
    "an empty key": "Bearer ",
    "a part of a key": f"Bearer {TOKEN[:-1]}",
    "a key that goes on": f"Bearer {TOKEN}A",
    "a wildcard": "Bearer hyp_%_%",
    "an end of a text": "Bearer hyp_' OR '1'='1",
    "a path": "Bearer hyp_../../token",
    "two keys": f"Bearer {TOKEN}, Bearer {TOKEN}",
    "other letters": "Bearer hyp_\u0430",
    "a long key": "Bearer hyp_" + "a" * 60_000,
}


@pytest.mark.parametrize("header", KEYS.values(), ids=KEYS.keys())
async def test_what_is_no_key_opens_nothing(unmoved: Stage, header: str) -> None:
    headers = {"Authorization": header.encode()}
    response = await unmoved.client.post("/v1/jobs", json={}, headers=headers)
    assert (response.status_code, response.json()["code"]) == (401, "unauthorized")


@pytest.mark.parametrize("key", ["a b", "a" * 256, "\u00e9", "", "a\tb"])
async def test_a_name_of_a_request_is_one_word(unmoved: Stage, key: str) -> None:
    headers = {"Idempotency-Key": key.encode("latin-1")}
    spec = {
        "kind": "finetune",
        "name": "a",
        "base_model": "b",
        "data": {"train": "file-" + "0" * 16},
    }
    response = await unmoved.client.post("/v1/jobs", json=spec, headers=headers)
    assert (response.status_code, response.json()["code"]) == (422, "request-invalid")


@pytest.mark.parametrize(
    "given", ["a\r\nSet-Cookie: b=c", "a b", "<script>", "a" * 65, "../../etc", "\u00e9"]
)
async def test_an_id_of_a_request_that_is_no_word_is_replaced(unmoved: Stage, given: str) -> None:
    headers = {"X-Request-ID": given.encode("latin-1")}
    response = await unmoved.client.get("/v1/jobs", headers=headers)
    assert response.headers["X-Request-ID"].isalnum()
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-Forwarded-User", "X-Original-URL"])
async def test_a_header_of_proxies_changes_nothing(unmoved: Stage, header: str) -> None:
    response = await unmoved.client.get("/v1/jobs", headers={header: "DELETE"})
    assert response.status_code == 200


def form(disposition: bytes, content: bytes = ROWS, end: bytes = b"--x--\r\n") -> bytes:
    return b"--x\r\nContent-Disposition: " + disposition + b"\r\n\r\n" + content + b"\r\n" + end


FILE = b'form-data; name="file"; filename="a.jsonl"'
FORMS = {
    "no boundary": ("multipart/form-data", form(FILE)),
    "an empty boundary": ("multipart/form-data; boundary=", form(FILE)),
    "another boundary": ("multipart/form-data; boundary=y", form(FILE)),
    "another type": ("multipart/mixed; boundary=x", form(FILE)),
    "JSON": ("application/json", ROWS),
    "no body": ("multipart/form-data; boundary=x", b""),
    "no end": ("multipart/form-data; boundary=x", form(FILE, end=b"")),
    "no part": ("multipart/form-data; boundary=x", b"--x--\r\n"),
    "no name": ("multipart/form-data; boundary=x", form(b"form-data")),
    "another name": ("multipart/form-data; boundary=x", form(b'form-data; name="files"')),
    "a path for a name": ("multipart/form-data; boundary=x", form(b'form-data; name="../file"')),
    "two files": ("multipart/form-data; boundary=x", form(FILE, end=form(FILE))),
    "another purpose": (
        "multipart/form-data; boundary=x",
        form(FILE, end=form(b'form-data; name="purpose"', b"__class__")),
    ),
    "a purpose without end": (
        "multipart/form-data; boundary=x",
        form(b'form-data; name="purpose"', b"a" * 100_000, end=form(FILE)),
    ),
    "a header without end": ("multipart/form-data; boundary=x", form(b"a" * 100_000)),
    "a header without a name": ("multipart/form-data; boundary=x", b"--x\r\n: a\r\n\r\nb\r\n--x--"),
}


@pytest.mark.parametrize(("kind", "body"), FORMS.values(), ids=FORMS.keys())
async def test_a_hostile_form_is_refused(unmoved: Stage, kind: str, body: bytes) -> None:
    headers = {"Content-Type": kind}
    response = await unmoved.client.post("/v1/files", content=body, headers=headers)
    assert (response.status_code, response.json()["code"]) == (422, "upload-malformed")

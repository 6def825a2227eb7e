from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import UploadMalformedError
from service.multipart import Upload

BOUNDARY = b"----boundary"


def form(*parts: tuple[bytes, bytes]) -> bytes:
    body = b"".join(
        b"--" + BOUNDARY + b"\r\n" + headers + b"\r\n\r\n" + data + b"\r\n"
        for headers, data in parts
    )
    return body + b"--" + BOUNDARY + b"--\r\n"


def file_part(data: bytes) -> tuple[bytes, bytes]:
    return b'content-disposition: form-data; name="file"; filename="a.jsonl"', data


def field_part(name: bytes, data: bytes) -> tuple[bytes, bytes]:
    return b'Content-Disposition: form-data; name="' + name + b'"', data


async def read(chunks: Sequence[bytes]) -> tuple[str, bytes]:
    async def body() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    upload = Upload(f"multipart/form-data; boundary={BOUNDARY.decode()}", body())
    filename = await upload.open()
    return filename, b"".join([piece async for piece in upload.content()])


@given(
    data=st.binary(max_size=200)
    | st.lists(st.sampled_from([b"\r\n--", BOUNDARY[:6], b"\r", b"x"])).map(b"".join),
    cuts=st.lists(st.integers(0, 600), max_size=20),
    fields_first=st.booleans(),
)
async def test_a_file_arrives_whole_however_the_body_is_cut(
    data: bytes, cuts: list[int], fields_first: bool
) -> None:
    parts = [file_part(data), field_part(b"purpose", b"fine-tune"), field_part(b"other", b"x")]
    body = form(*(parts[::-1] if fields_first else parts))
    edges = [0, *sorted(cuts), len(body)]
    chunks = [body[start:end] for start, end in pairwise(edges)]

    assert await read(chunks) == ("a.jsonl", data)


@given(end=st.integers(0, 200))
async def test_a_body_that_ends_early_is_an_error(end: int) -> None:
    body = form(file_part(b"x" * 100))
    assert len(body) > end

    with pytest.raises(UploadMalformedError):
        await read([body[:end]])


async def test_a_purpose_without_end_is_an_error() -> None:
    chunks = [form(field_part(b"purpose", b"x" * 10_000), file_part(b"x"))]

    with pytest.raises(UploadMalformedError, match="purpose"):
        await read(chunks)


@pytest.mark.parametrize(
    "body",
    [b"", b"garbage", b"--wrong\r\n", form(field_part(b"purpose", b"fine-tune"))],
    ids=["empty", "garbage", "other-boundary", "no-file"],
)
async def test_a_body_without_a_file_is_an_error(body: bytes) -> None:
    with pytest.raises(UploadMalformedError, match="curl -F"):
        await read([body])

"""OpenAI's own client uploads, reads and deletes data sets."""

import io
import json
from pathlib import Path

import openai
import pytest
from openai import AsyncOpenAI

from service.file_states import FileStatus
from service.tables import UploadedFile
from tests.unit.service.openai.sdk import require_form
from tests.unit.service.stage import ROWS, Stage

CHAT = [
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": f"{number} + 1?"},
            {"role": "assistant", "content": str(number + 1)},
        ]
    }
    for number in range(3)
]
CONVERSATIONS = "".join(json.dumps(row) + "\n" for row in CHAT).encode()


async def set_status(stage: Stage, file_id: str, status: FileStatus) -> None:
    async with stage.parts.database.writing() as session:
        file = await session.get(UploadedFile, file_id)
        assert file is not None
        file.status = status
        file.fault = {"problem": "row 2 is empty", "errors": []} if status == "invalid" else None


async def test_a_file_of_conversations_is_taken_read_back_and_trained_on(
    stage: Stage, sdk: AsyncOpenAI, tmp_path: Path
) -> None:
    path = tmp_path / "chat.jsonl"
    path.write_bytes(CONVERSATIONS)

    file = await sdk.files.create(file=path, purpose="fine-tune")

    require_form(file)
    assert (file.object, file.filename, file.bytes) == ("file", "chat.jsonl", len(CONVERSATIONS))
    assert (file.purpose, file.status) == ("fine-tune", "processed")
    assert await sdk.files.retrieve(file.id) == file
    assert await sdk.files.wait_for_processing(file.id) == file
    assert (await sdk.files.content(file.id)).content == CONVERSATIONS
    with pytest.warns(DeprecationWarning, match="content"):
        assert await sdk.files.retrieve_content(file.id) == CONVERSATIONS.decode()
    job = await sdk.fine_tuning.jobs.create(model="tiny", training_file=file.id)
    assert job.training_file == file.id


async def test_files_are_listed_newest_first_by_pages(stage: Stage, sdk: AsyncOpenAI) -> None:
    ids = [await stage.upload() for _ in range(3)]

    page = await sdk.files.list(limit=2, purpose="fine-tune", order="desc")
    everything = [file async for file in sdk.files.list(limit=2)]

    assert (len(page.data), page.has_more) == (2, True)
    assert [file.id for file in everything] == ids[::-1]
    assert [file.id for file in (await sdk.files.list()).data] == ids[::-1]
    assert (await sdk.files.list(purpose="batch")).data == []
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        await sdk.files.list(order="asc")
    assert refused.value.param == "order"


async def test_a_file_that_no_job_needs_is_deleted_and_others_are_not(
    stage: Stage, sdk: AsyncOpenAI
) -> None:
    file = await sdk.files.create(file=io.BytesIO(ROWS), purpose="fine-tune")
    job = await sdk.fine_tuning.jobs.create(model="tiny", training_file=file.id)

    with pytest.raises(openai.ConflictError) as refused:
        await sdk.files.delete(file.id)
    await sdk.fine_tuning.jobs.cancel(job.id)
    deleted = await sdk.files.delete(file.id)

    require_form(deleted)
    assert refused.value.code == "file-in-use"
    assert (deleted.id, deleted.object, deleted.deleted) == (file.id, "file", True)
    with pytest.raises(openai.NotFoundError) as missing:
        await sdk.files.retrieve(file.id)
    assert missing.value.code == "file-not-found"


@pytest.mark.parametrize(
    ("status", "shown", "details"),
    [
        (FileStatus.VALIDATING, "uploaded", None),
        (FileStatus.INVALID, "error", "row 2 is empty"),
    ],
)
async def test_a_file_says_whether_its_rows_are_validated(
    stage: Stage, sdk: AsyncOpenAI, status: FileStatus, shown: str, details: str | None
) -> None:
    file_id = await stage.upload()
    await set_status(stage, file_id, status)

    file = await sdk.files.retrieve(file_id)

    require_form(file)
    assert (file.status, file.status_details) == (shown, details)


async def test_a_job_that_waits_for_its_file_is_validating_files(
    stage: Stage, sdk: AsyncOpenAI
) -> None:
    file_id = await stage.upload()
    await set_status(stage, file_id, FileStatus.VALIDATING)

    job = await sdk.fine_tuning.jobs.create(model="tiny", training_file=file_id)
    await set_status(stage, file_id, FileStatus.READY)

    require_form(job)
    assert job.status == "validating_files"
    assert (await sdk.fine_tuning.jobs.retrieve(job.id)).status == "queued"


async def test_a_file_with_a_bad_row_is_refused_and_says_where(
    stage: Stage, sdk: AsyncOpenAI
) -> None:
    bad = CONVERSATIONS + b'{"messages": [{"role": "user", "content": "?"}]}\n'

    with pytest.raises(openai.UnprocessableEntityError) as refused:
        await sdk.files.create(file=("chat.jsonl", bad), purpose="fine-tune")

    assert refused.value.code == "dataset-invalid"
    assert refused.value.response.json()["errors"][0]["line"] == 4


async def test_what_a_file_cannot_be_for_is_refused_by_name(stage: Stage, sdk: AsyncOpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as purpose:
        await sdk.files.create(file=ROWS, purpose="batch")
    with pytest.raises(openai.UnprocessableEntityError) as expiry:
        await sdk.files.create(
            file=ROWS,
            purpose="fine-tune",
            expires_after={"anchor": "created_at", "seconds": 3600},
        )

    assert (purpose.value.code, purpose.value.param) == ("upload-malformed", "purpose")
    assert (expiry.value.code, expiry.value.param) == ("upload-malformed", "expires_after")


async def test_an_upload_may_be_larger_than_any_other_body(stage: Stage, sdk: AsyncOpenAI) -> None:
    content = CONVERSATIONS * (2 * 1024**2 // len(CONVERSATIONS))

    file = await sdk.files.create(file=("chat.jsonl", content), purpose="fine-tune")

    assert file.bytes == len(content)

"""Bad input ends as a failed job with a stable code and a sentence that says what to do."""

import io
from collections.abc import Callable
from typing import Any

import pytest

from service.answers import JobRead
from service.client import Client, ProblemError
from tests.end_to_end.conftest import upload

pytestmark = pytest.mark.integration


def slow(*values: Any) -> Any:
    """A case that `make test` leaves to the unit tests of the workers."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("sections", "code", "sentence"),
    [
        ({"base_model": "/no/such/folder"}, "base-model-not-found", "/no/such/folder"),
        ({"resources": {"cpus_per_worker": 200}}, "resources-unavailable", "200"),
        slow({"adapter": {"target_modules": ["nothing"]}}, "target-modules-not-found", "nothing"),
        slow({"data": {"max_length": 8}}, "row-too-long", "data.train, line 1 has"),
        slow({"training": {"learning_rate": 1e30}}, "loss-not-finite", "step"),
    ],
)
def test_what_only_the_cluster_can_see_fails_the_job_once_with_its_code(
    sections: dict[str, Any],
    code: str,
    sentence: str,
    make_spec: Callable[..., dict[str, Any]],
    run_to_end: Callable[[dict[str, Any]], JobRead],
) -> None:
    job = run_to_end(make_spec("bad", **sections))
    assert job.status == "failed"
    assert job.failure is not None
    assert (job.failure.code, job.attempt) == (code, 1)
    assert sentence in job.failure.message
    assert "Traceback" not in job.failure.message


def test_a_file_that_was_never_uploaded_is_refused_at_submission(
    make_spec: Callable[..., dict[str, Any]], client: Client
) -> None:
    with pytest.raises(ProblemError) as refusal:
        client.submit_job(make_spec("bad", data={"train": "file-0000000000000000"}))
    assert (refusal.value.status, refusal.value.code) == (404, "file-not-found")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", None),
        (b'{"instruction": "a", "output": "b"}\nnot json\n', "line 2"),
        (b'{"instruction": "a"}\n', "line 1"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "line 1"),
    ],
    ids=["empty", "no JSON", "no output", "binary"],
)
def test_a_malformed_data_set_is_refused_with_the_line_that_is_wrong(
    content: bytes, line: str | None, client: Client
) -> None:
    with pytest.raises(ProblemError) as refusal:
        client.upload_file(io.BytesIO(content), "rows.jsonl")
    assert (refusal.value.status, refusal.value.code) == (422, "dataset-invalid")
    assert line is None or line in str(refusal.value)


@pytest.mark.slow
def test_more_held_out_rows_than_there_are_fails_the_job(
    make_spec: Callable[..., dict[str, Any]],
    run_to_end: Callable[[dict[str, Any]], JobRead],
    client: Client,
) -> None:
    few = upload(client, [{"instruction": "add", "input": "1 1", "output": "2"}] * 3)
    job = run_to_end(make_spec("bad", data={"train": few.id, "validation_rows": 5}))
    assert job.failure is not None
    assert job.failure.code == "data-invalid"
    assert "5" in job.failure.message

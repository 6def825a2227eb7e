"""The client over a scripted network."""

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import pytest

from jobs.tickets import TrialState
from service.client import (
    Client,
    ProblemError,
    ServiceUnreachableError,
    UnexpectedAnswerError,
)
from service.connection import is_loopback
from service.states import JobStatus
from tests.unit.service.cli.conftest import (
    JOB_ID,
    TOKEN,
    URL,
    ScriptedService,
    event,
    event_stream,
    file,
    job,
    problem,
    status_event,
    stream_of,
    trial,
)

EVENTS_PATH = f"/v1/jobs/{JOB_ID}/events"


@pytest.fixture
def service() -> ScriptedService:
    return ScriptedService()


@pytest.fixture
def client(service: ScriptedService) -> Iterator[Client]:
    transport = httpx.MockTransport(service)
    with Client(f"{URL}/", TOKEN, reconnect_wait_s=0, transport=transport) as client:
        yield client


def broken(*pieces: bytes) -> Iterator[bytes]:
    """A stream whose connection breaks after some bytes."""
    yield from pieces
    raise httpx.ReadError("connection reset")


def test_every_request_carries_the_token(client: Client, service: ScriptedService) -> None:
    service.on("GET", f"/v1/jobs/{JOB_ID}", job())
    client.get_job(JOB_ID)
    assert service.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"


def test_an_upload_sends_the_rows_as_a_multipart_file(
    client: Client, service: ScriptedService
) -> None:
    service.on("POST", "/v1/files", file())
    uploaded = client.upload_file(io.BytesIO(b'{"instruction": "a"}\n'), "rows.jsonl")
    (request,) = service.requests
    assert uploaded.num_rows == 1234
    assert request.headers["Content-Type"].startswith("multipart/form-data")
    assert b'name="file"; filename="rows.jsonl"' in request.content
    assert b'{"instruction": "a"}\n' in request.content


def test_a_list_asks_only_for_what_was_given(client: Client, service: ScriptedService) -> None:
    service.on("GET", "/v1/jobs", {"data": [job()], "has_more": True})
    page = client.list_jobs(limit=5, status=JobStatus.QUEUED)
    assert dict(service.requests[0].url.params) == {"limit": "5", "status": "queued"}
    assert (page.data[0].id, page.has_more) == (JOB_ID, True)


def test_a_job_id_stays_one_segment_of_the_path(client: Client, service: ScriptedService) -> None:
    with pytest.raises(ProblemError):
        client.cancel_job("../../files?x=1")
    assert service.requests[0].url.raw_path == b"/v1/jobs/..%2F..%2Ffiles%3Fx%3D1/cancel"


def test_a_job_is_paused_resumed_and_cancelled(client: Client, service: ScriptedService) -> None:
    for verb, status in (("pause", "pausing"), ("resume", "queued"), ("cancel", "cancelling")):
        service.on("POST", f"/v1/jobs/{JOB_ID}/{verb}", job(status))
    jobs = [client.pause_job(JOB_ID), client.resume_job(JOB_ID), client.cancel_job(JOB_ID)]
    assert [job.status for job in jobs] == ["pausing", "queued", "cancelling"]


def test_trials_are_listed_looked_up_and_cancelled(
    client: Client, service: ScriptedService
) -> None:
    path = f"/v1/jobs/{JOB_ID}/trials"
    service.on("GET", path, {"data": [trial(7, objectives={"eval/loss": 0.5})], "has_more": False})
    service.on("GET", f"{path}/trial-0007", trial(7))
    service.on("POST", f"{path}/trial-0007/cancel", trial(7, "running", cancel_requested=True))

    (listed,) = client.list_trials(JOB_ID, sort="-eval/loss", state=TrialState.COMPLETED).data

    query = {"sort": "-eval/loss", "state": "completed", "limit": "1000"}
    assert dict(service.requests[0].url.params) == query
    assert listed.objectives == {"eval/loss": 0.5}
    assert client.get_trial(JOB_ID, listed.id).values == {"adapter.curvature": 2.5, "adapter.r": 8}
    assert client.cancel_trial(JOB_ID, listed.id).cancel_requested


def test_a_pause_does_not_end_a_followed_history(client: Client, service: ScriptedService) -> None:
    statuses = ["running", "pausing", "paused", "queued", "running", "succeeded"]
    events = [status_event(number, status) for number, status in enumerate(statuses)]
    service.on("GET", EVENTS_PATH, event_stream(stream_of(*events)))
    followed = [event.data["status"] for event in client.follow_events(JOB_ID)]
    assert followed == statuses


def test_fields_that_a_newer_service_adds_are_ignored(
    client: Client, service: ScriptedService
) -> None:
    service.on("GET", f"/v1/jobs/{JOB_ID}", job(priority=3))
    assert client.get_job(JOB_ID).status == "queued"


def test_a_problem_document_becomes_an_error_with_code_sentence_and_fields(
    client: Client, service: ScriptedService
) -> None:
    fault = {"field": "adapter.r", "value": 0, "message": "must be at least 1"}
    service.on("POST", "/v1/jobs", problem(422, "spec-invalid", "the spec is invalid", [fault]))
    with pytest.raises(ProblemError, match="the spec is invalid") as refusal:
        client.submit_job({"kind": "finetune"})
    assert (refusal.value.status, refusal.value.code) == (422, "spec-invalid")
    assert [error.field for error in refusal.value.problem.errors] == ["adapter.r"]


@pytest.mark.parametrize(
    ("answer", "kind", "sentence"),
    [
        (httpx.Response(404, text="<html>"), UnexpectedAnswerError, "check the address"),
        (httpx.Response(200, text="<html>"), UnexpectedAnswerError, "no InfoRead"),
        (httpx.Response(307, headers={"Location": "/"}), UnexpectedAnswerError, "307"),
        (httpx.Response(502, text="bad gateway"), ServiceUnreachableError, "502"),
    ],
    ids=["another server", "a web page", "redirect", "gateway"],
)
def test_an_answer_of_something_else_is_told_apart(
    answer: httpx.Response,
    kind: type[Exception],
    sentence: str,
    client: Client,
    service: ScriptedService,
) -> None:
    service.on("GET", "/v1/info", answer)
    with pytest.raises(kind, match=sentence):
        client.info()


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        (httpx.ConnectError("refused"), "nothing answers at http"),
        (httpx.ReadTimeout("slow"), "did not answer in time"),
        (httpx.RemoteProtocolError("closed"), "broke: closed"),
    ],
    ids=["refused", "timeout", "closed"],
)
def test_a_network_failure_is_one_sentence(
    failure: Exception, sentence: str, client: Client, service: ScriptedService
) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise failure

    service.on("GET", "/v1/info", fail)
    with pytest.raises(ServiceUnreachableError, match=sentence):
        client.info()


def test_a_service_that_is_not_ready_says_what_it_lacks(
    client: Client, service: ScriptedService
) -> None:
    checks = {"ray": {"ok": False, "detail": "connection refused"}}
    answer = httpx.Response(503, json={"status": "unavailable", "checks": checks})
    service.on("GET", "/readyz", answer)
    assert client.ready().checks["ray"].detail == "connection refused"


def test_events_arrive_in_order_and_end_with_the_job(
    client: Client, service: ScriptedService
) -> None:
    content = stream_of(
        status_event(1, "running"), event(2, "progress", step=1), status_event(3, "succeeded")
    )
    service.on("GET", EVENTS_PATH, event_stream(content + b": nothing may follow\n\n"))
    assert [item.id for item in client.follow_events(JOB_ID)] == [1, 2, 3]
    assert service.requests[0].headers["Accept"] == "text/event-stream"
    assert "Last-Event-ID" not in service.requests[0].headers


def test_heartbeats_are_no_events(client: Client, service: ScriptedService) -> None:
    content = (
        b": ping\n\n"
        + stream_of(status_event(1, "running"))
        + b": ping\n\n"
        + stream_of(status_event(2, "failed"))
    )
    service.on("GET", EVENTS_PATH, event_stream(content))
    assert [item.id for item in client.follow_events(JOB_ID)] == [1, 2]


def test_a_broken_stream_is_resumed_after_the_last_event(
    client: Client, service: ScriptedService
) -> None:
    half = stream_of(event(2, "progress", step=1))[:20]
    streams = iter(
        [
            event_stream(broken(stream_of(status_event(1, "running")), half)),
            event_stream(broken()),
            problem(503, "database-unavailable", "try again"),
            event_stream(stream_of(event(2, "progress", step=1), status_event(3, "succeeded"))),
        ]
    )
    service.on("GET", EVENTS_PATH, lambda request: next(streams))
    interruptions: list[Exception] = []
    ids = [item.id for item in client.follow_events(JOB_ID, on_interruption=interruptions.append)]
    assert ids == [1, 2, 3]
    resumed = [request.headers.get("Last-Event-ID") for request in service.requests]
    assert resumed == [None, "1", "1", "1"]
    assert len(interruptions) == 1, "an outage is told once"


def test_a_stream_that_ends_early_is_opened_again(client: Client, service: ScriptedService) -> None:
    streams = iter(
        [
            event_stream(stream_of(status_event(1, "running"))),
            event_stream(stream_of(status_event(2, "succeeded"))),
        ]
    )
    service.on("GET", EVENTS_PATH, lambda request: next(streams))
    service.on("GET", f"/v1/jobs/{JOB_ID}", job("running"))
    assert [item.id for item in client.follow_events(JOB_ID)] == [1, 2]


def test_a_stream_that_ends_after_the_job_has_ended_is_completed_from_the_list(
    client: Client, service: ScriptedService
) -> None:
    pages = iter(
        [
            {"data": [event(8, "message", text="x")], "has_more": True},
            {"data": [status_event(9, "failed")], "has_more": False},
        ]
    )

    def answer(request: httpx.Request) -> httpx.Response:
        if request.headers["Accept"] == "text/event-stream":
            return event_stream(b"")
        return httpx.Response(200, json=next(pages))

    service.on("GET", EVENTS_PATH, answer)
    service.on("GET", f"/v1/jobs/{JOB_ID}", job("failed"))
    assert [item.id for item in client.follow_events(JOB_ID, after=7)] == [8, 9]
    assert [request.url.params.get("after") for request in service.requests[-2:]] == ["7", "8"]


def test_following_gives_up_when_patience_is_over(client: Client, service: ScriptedService) -> None:
    service.on("GET", EVENTS_PATH, lambda request: event_stream(broken()))
    with pytest.raises(ServiceUnreachableError, match="connection reset"):
        list(client.follow_events(JOB_ID, patience_s=-1))


def test_a_refusal_is_not_tried_again(client: Client, service: ScriptedService) -> None:
    with pytest.raises(ProblemError, match="there is no"):
        list(client.follow_events(JOB_ID))
    assert len(service.requests) == 1


def test_a_log_is_followed_only_on_request(client: Client, service: ScriptedService) -> None:
    service.on("GET", f"/v1/jobs/{JOB_ID}/logs", httpx.Response(200, text="line ü\n"))
    assert "".join(client.logs(JOB_ID)) == "line ü\n"
    assert "".join(client.logs(JOB_ID, follow=True)) == "line ü\n"
    assert [str(request.url.query, "ascii") for request in service.requests] == ["", "follow=true"]


def test_a_spec_object_is_sent_as_json(client: Client, service: ScriptedService) -> None:
    from jobs.finetune_specs import FinetuneSpec
    from workers.specs import DataSpec

    spec = FinetuneSpec(
        kind="finetune", name="n", base_model="b", data=DataSpec(train="file-0123456789abcdef")
    )
    service.on("POST", "/v1/jobs", job())
    client.submit_job(spec)
    assert FinetuneSpec.model_validate(json.loads(service.requests[0].content)) == spec


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "::1"])
def test_loopback_hosts_are_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["example.org", "10.0.0.1", "localhost.example.org", ""])
def test_other_hosts_are_no_loopback(host: str) -> None:
    assert not is_loopback(host)


KEY = {
    "id": "key-0123456789abcdef",
    "name": "ci",
    "project": "sums",
    "scopes": ["submit"],
    "created_at": "2026-01-02T03:04:05Z",
}


def test_keys_are_made_listed_looked_up_and_revoked(
    client: Client, service: ScriptedService
) -> None:
    path = f"/v1/keys/{KEY['id']}"
    service.on("POST", "/v1/keys", KEY | {"key": "hyp_secret"})
    service.on("GET", "/v1/keys", {"data": [KEY]})
    service.on("GET", path, KEY)
    service.on("POST", f"{path}/revoke", KEY | {"revoked_at": "2026-01-02T03:04:05Z"})
    until = datetime(2026, 3, 1, tzinfo=UTC)

    made = client.keys.create("ci", project="sums", expires_at=until)

    assert made.key == "hyp_secret"
    (body,) = service.bodies("POST", "/v1/keys")
    assert body == {
        "name": "ci",
        "project": "sums",
        "scopes": ["submit"],
        "expires_at": "2026-03-01T00:00:00+00:00",
    }
    assert client.keys.list().data == [client.keys.get(made.id)]
    assert client.keys.revoke(made.id).revoked_at is not None


def test_the_audit_log_is_asked_for_what_is_wanted(
    client: Client, service: ScriptedService
) -> None:
    entry = {
        "id": 7,
        "created_at": "2026-01-02T03:04:05Z",
        "project": "sums",
        "action": "job.cancel",
        "target": JOB_ID,
        "outcome": "done",
    }
    service.on("GET", "/v1/audit", {"data": [entry]})

    (read,) = client.keys.audit(action="job.cancel", after=9).data

    assert (read.id, read.key_id) == (7, None)
    assert dict(service.requests[0].url.params) == {
        "action": "job.cancel",
        "limit": "100",
        "after": "9",
    }

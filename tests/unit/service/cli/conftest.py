"""The command line as a user meets it, against a service that answers from a script."""

import json
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.cli.__main__ import main
from service.client import Client

URL = "http://127.0.0.1:8800"
TOKEN = "token-of-the-test"
JOB_ID = "job-0123456789abcdef"

Reply = httpx.Response | Callable[[httpx.Request], httpx.Response]


class ScriptedService:
    """Stands where the network is: answers known requests and keeps what was asked."""

    def __init__(self) -> None:
        self.replies: dict[tuple[str, str], Reply] = {}
        self.requests: list[httpx.Request] = []

    def on(self, method: str, path: str, reply: Reply | dict[str, Any]) -> None:
        self.replies[method, path] = (
            httpx.Response(200, json=reply) if isinstance(reply, dict) else reply
        )

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        reply = self.replies.get((request.method, request.url.path))
        if reply is None:
            return problem(404, "not-found", f"there is no {request.url.path}")
        return reply(request) if callable(reply) else reply

    def bodies(self, method: str, path: str) -> list[Any]:
        return [
            json.loads(request.content)
            for request in self.requests
            if (request.method, request.url.path) == (method, path)
        ]


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    exit_code: int
    stdout: str
    stderr: str


def problem(status: int, code: str, detail: str, errors: Iterable[Any] = ()) -> httpx.Response:
    return httpx.Response(
        status,
        json={
            "type": f"urn:hyplora:problem:{code}",
            "title": code,
            "status": status,
            "detail": detail,
            "code": code,
            "errors": list(errors),
        },
        headers={"Content-Type": "application/problem+json"},
    )


def job(status: str = "queued", **fields: Any) -> dict[str, Any]:
    return {
        "id": JOB_ID,
        "kind": "finetune",
        "name": "arithmetic",
        "status": status,
        "terminal": status in {"succeeded", "failed", "cancelled"},
        "spec": {"kind": "finetune", "name": "arithmetic"},
        "attempt": 1,
        "created_at": "2026-01-02T03:04:05Z",
        **fields,
    }


def trial(number: int, state: str = "completed", **fields: Any) -> dict[str, Any]:
    return {
        "id": f"trial-{number:04}",
        "state": state,
        "values": {"adapter.curvature": 2.5, "adapter.r": 8},
        "objectives": {},
        "errors": {},
        "metrics": {},
        **fields,
    }


def file(file_id: str = "file-0123456789abcdef") -> dict[str, Any]:
    return {
        "id": file_id,
        "filename": "rows.jsonl",
        "size_bytes": 10,
        "sha256": "0" * 64,
        "num_rows": 1234,
        "created_at": "2026-01-02T03:04:05Z",
    }


def event(number: int, kind: str, **data: Any) -> dict[str, Any]:
    return {
        "id": number,
        "job_id": JOB_ID,
        "created_at": "2026-01-02T03:04:05Z",
        "type": kind,
        "data": data,
    }


def status_event(number: int, status: str) -> dict[str, Any]:
    is_terminal = status in {"succeeded", "failed", "cancelled"}
    return event(number, "status", status=status, previous=None, terminal=is_terminal)


def stream_of(*events: dict[str, Any]) -> bytes:
    return b"".join(
        f"id: {item['id']}\nevent: {item['type']}\ndata: {json.dumps(item)}\n\n".encode()
        for item in events
    )


def event_stream(content: bytes | Iterable[bytes]) -> httpx.Response:
    return httpx.Response(
        200, content=content, headers={"Content-Type": "text/event-stream; charset=utf-8"}
    )


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a stack that runs."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "endpoint.json").write_text(json.dumps({"url": URL}))
    (folder / "token").write_text(f"{TOKEN}\n")
    monkeypatch.setenv("HYPLORA_HOME", str(folder))
    monkeypatch.delenv("HYPLORA_URL", raising=False)
    monkeypatch.delenv("HYPLORA_TOKEN", raising=False)
    return folder


@pytest.fixture
def service(home: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptedService:
    scripted = ScriptedService()
    transport = httpx.MockTransport(scripted)
    client = partial(Client, transport=transport, reconnect_wait_s=0)
    monkeypatch.setattr("service.cli.endpoint.Client", client)
    return scripted


@pytest.fixture
def hyplora(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Run one command in this process."""

    def run(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["hyplora", *map(str, arguments)])
        with pytest.raises(SystemExit) as ending:
            main()
        code = ending.value.code
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Outcome(code if isinstance(code, int) else 0, captured.out, captured.err)

    return run


@pytest.fixture
def silent_url() -> Iterator[str]:
    """An address of this machine at which nothing listens."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{holder.getsockname()[1]}"

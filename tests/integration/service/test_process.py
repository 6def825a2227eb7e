"""The service as a process, with Ray and MLflow down: killed, started again, stopped."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest

from tests.integration.service.service_process import ROWS, ServiceProcess, free_port

pytestmark = pytest.mark.integration


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    with closing(ServiceProcess(tmp_path)) as service:
        service.start()
        yield service


def test_jobs_stay_queued_and_nothing_is_lost_when_the_service_is_killed(
    service: ServiceProcess,
) -> None:
    jobs = [service.submit() for _ in range(3)]
    cancelled = service.submit()
    service.client.post(f"/v1/jobs/{cancelled}/cancel")
    before = service.get("/v1/jobs")

    service.kill()
    service.start()

    assert service.get("/v1/jobs") == before
    assert {service.get(f"/v1/jobs/{job_id}")["status"] for job_id in jobs} == {"queued"}
    assert service.get(f"/v1/jobs/{cancelled}")["status"] == "cancelled"
    ready = service.client.get("/readyz")
    assert ready.status_code == 503
    checks = ready.json()["checks"]
    assert checks["database"]["ok"]
    assert "Connection refused" in checks["ray"]["detail"]
    assert "Connection refused" in checks["mlflow"]["detail"]


def test_an_outage_is_logged_once_and_not_at_every_round(service: ServiceProcess) -> None:
    service.submit()
    deadline = time.monotonic() + 30
    while "out of reach" not in service.log() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)

    assert service.log().count("out of reach") == 1
    assert "Traceback" not in service.log()


def test_a_service_killed_while_jobs_arrive_keeps_every_job_that_it_accepted(
    service: ServiceProcess,
) -> None:
    train = service.upload().json()["id"]
    spec = {"kind": "finetune", "name": "sums", "base_model": "tiny", "data": {"train": train}}
    accepted: list[str] = [service.client.post("/v1/jobs", json=spec).json()["id"]]
    threading.Timer(0.5, service.kill).start()

    with pytest.raises(httpx.TransportError):  # noqa: PT012 (goes on until the service is killed)
        while True:
            accepted.append(service.client.post("/v1/jobs", json=spec).json()["id"])

    service.process.wait(30)
    service.start()
    kept = {job["id"] for job in service.get("/v1/jobs?limit=200")["data"]}
    assert kept >= set(accepted[-200:])
    with closing(sqlite3.connect(service.home / "hyplora.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []


def test_an_upload_cut_off_by_a_kill_is_not_there_afterwards(service: ServiceProcess) -> None:
    half = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + ROWS
    with closing(socket.create_connection(("127.0.0.1", service.port))) as connection:
        head = (
            "POST /v1/files HTTP/1.1\r\nHost: service\r\n"
            f"Authorization: Bearer {service.key}\r\nContent-Length: 100000\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        )
        connection.sendall(head.encode() + half)
        incoming = service.home / "files/incoming"
        deadline = time.monotonic() + 30
        while not list(incoming.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert list(incoming.iterdir())
        service.kill()

    service.start()

    assert service.get("/v1/files")["data"] == []
    assert [path.name for path in (service.home / "files").iterdir()] == ["incoming"]


def test_a_client_that_sends_too_much_hears_why(tmp_path: Path) -> None:
    settings = {"HYPLORA_MAX_UPLOAD_BYTES": "100000"}
    with closing(ServiceProcess(tmp_path, **settings)) as service:
        service.start()

        response = service.upload(ROWS * 400_000)

        assert response.status_code == 413
        assert response.json()["code"] == "upload-too-large"


def test_an_upload_without_the_token_is_refused_before_it_is_read(
    service: ServiceProcess,
) -> None:
    with closing(socket.create_connection(("127.0.0.1", service.port))) as connection:
        connection.sendall(
            b"POST /v1/files HTTP/1.1\r\nHost: service\r\nContent-Length: 1000000000\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        )
        connection.settimeout(30)

        assert connection.recv(100).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize("num_jobs", [0, 2])
def test_a_service_that_is_stopped_ends_its_open_streams_promptly(
    service: ServiceProcess, num_jobs: int
) -> None:
    with ExitStack() as streams:
        for job_id in [service.submit() for _ in range(num_jobs)]:
            for path, accept in (("events", "text/event-stream"), ("logs?follow=true", "*/*")):
                response = streams.enter_context(
                    service.client.stream(
                        "GET", f"/v1/jobs/{job_id}/{path}", headers={"Accept": accept}
                    )
                )
                assert response.status_code == 200

        assert service.terminate() < 10

    assert service.process.returncode in {0, -signal.SIGTERM}
    assert "Traceback" not in service.log()
    with closing(sqlite3.connect(service.home / "hyplora.db")) as database:
        assert database.execute("SELECT * FROM leases").fetchall() == []


def test_an_event_stream_goes_on_after_a_restart_where_it_broke(service: ServiceProcess) -> None:
    job_id = service.submit()
    path, headers = f"/v1/jobs/{job_id}/events", {"Accept": "text/event-stream"}
    with service.client.stream("GET", path, headers=headers) as stream:
        lines = stream.iter_lines()
        last_id = next(line for line in lines if line.startswith("id: ")).removeprefix("id: ")
        service.kill()

    service.start()
    service.client.post(f"/v1/jobs/{job_id}/cancel")
    resumed = service.client.get(path, headers=headers | {"Last-Event-ID": last_id})

    data = [line.removeprefix("data: ") for line in resumed.text.splitlines() if "data: " in line]
    assert [json.loads(event)["data"]["status"] for event in data] == ["cancelled"]


def test_two_replicas_can_start_on_one_new_database(tmp_path: Path) -> None:
    with ExitStack() as stack:
        replicas = [stack.enter_context(closing(ServiceProcess(tmp_path))) for _ in range(2)]
        threads = [threading.Thread(target=replica.start) for replica in replicas]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        job_id = replicas[0].submit()

        assert replicas[1].get(f"/v1/jobs/{job_id}")["id"] == job_id
        with closing(sqlite3.connect(tmp_path / "hyplora.db")) as database:
            assert database.execute("SELECT COUNT(*) FROM leases").fetchone() == (1,)


def run_as_configured(home: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "service"],
        env=os.environ | {"HYPLORA_HOME": str(home)} | environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_service_that_cannot_start_says_what_to_do_in_one_line(tmp_path: Path) -> None:
    with run_as_configured(tmp_path, HYPLORA_PORT="99999") as process:
        _, errors = process.communicate(timeout=60)

    assert process.returncode == 1
    assert errors.startswith("error: HYPLORA_PORT: Input should be less than")
    assert errors.count("\n") == 1


def test_the_service_listens_where_its_settings_say(tmp_path: Path) -> None:
    port = free_port()

    with run_as_configured(tmp_path, HYPLORA_PORT=str(port)) as process:
        assert process.stderr is not None
        running = next(line for line in process.stderr if "running on" in line)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)

    assert f"http://127.0.0.1:{port}" in running
    assert process.returncode in {0, -signal.SIGINT}


def test_a_service_without_a_key_says_how_to_make_one_and_takes_it(tmp_path: Path) -> None:
    with closing(ServiceProcess(tmp_path)) as service:
        (tmp_path / "hyplora.db").unlink()
        service.start()
        assert "make one with: hyplora keys create" in service.log()
        assert service.client.get("/v1/info").status_code == 401

        key = manage_keys(service, "create", "ci", "--scope", "read").strip()
        service.client.headers["Authorization"] = f"Bearer {key}"

        assert service.client.get("/v1/jobs").status_code == 200
        assert service.client.post("/v1/jobs", json={}).status_code == 403


def test_a_key_that_is_revoked_at_the_database_is_refused_within_seconds(
    service: ServiceProcess,
) -> None:
    (key,) = service.get("/v1/keys")["data"]

    manage_keys(service, "revoke", key["id"])

    deadline = time.monotonic() + 30
    while (answer := service.client.get("/v1/jobs")).status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert answer.status_code == 401
    assert "was revoked at" in answer.json()["detail"]


def test_the_last_use_of_a_key_is_known_once_the_service_has_stopped(
    service: ServiceProcess,
) -> None:
    service.get("/v1/jobs")

    service.terminate()

    (key,) = json.loads(manage_keys(service, "list", "--json"))["data"]
    assert key["last_used_at"] is not None


def manage_keys(service: ServiceProcess, *arguments: str) -> str:
    """Run `hyplora keys` on the database of a service."""
    command = [sys.executable, "-m", "service.cli", "keys", *arguments]
    return subprocess.run(
        command, env=service.environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout

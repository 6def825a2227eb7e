"""Uploads to a service that is a process: broken off, too large for the disk, killed."""

import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.integration.service.service_process import ROWS, ServiceProcess

pytestmark = pytest.mark.integration

MANY_ROWS = ROWS * 400_000
"""Some seconds of validation."""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    """A service that waits for no validation."""
    settings = {"HYPLORA_UPLOAD_WAIT_S": "0", "HYPLORA_LEASE_TTL_S": "1"}
    with closing(ServiceProcess(tmp_path, **settings)) as service:
        service.start()
        yield service


def stored_names(service: ServiceProcess) -> list[str]:
    return [path.name for path in (service.home / "files").rglob("*") if path.is_file()]


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 120
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


def test_an_upload_whose_client_goes_away_leaves_nothing(service: ServiceProcess) -> None:
    half = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + ROWS * 9
    with closing(socket.create_connection(("127.0.0.1", service.port))) as connection:
        head = (
            "POST /v1/files HTTP/1.1\r\nHost: service\r\n"
            f"Authorization: Bearer {service.key}\r\nContent-Length: 10000000\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        )
        connection.sendall(head.encode() + half)
        until(lambda: stored_names(service))
        assert service.get("/v1/files")["data"] == []

    until(lambda: not stored_names(service))

    assert service.get("/v1/files")["data"] == []
    assert service.upload().status_code == 201
    assert "Traceback" not in service.log()


def test_a_file_that_the_disk_has_no_room_for_leaves_nothing(tmp_path: Path) -> None:
    limit = 8 * 1024**2

    def no_file_grows() -> None:
        """The kernel refuses what grows beyond the limit, as a full disk does, to root, too."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    with closing(ServiceProcess(tmp_path)) as service:
        service.start(no_file_grows)

        response = service.upload(b"x" * (limit + 1))

        assert (response.status_code, response.json()["code"]) == (507, "storage-full")
        assert stored_names(service) == []
        assert service.get("/v1/files")["data"] == []
        assert service.upload().status_code == 201


def test_a_file_of_a_service_that_is_killed_is_validated_after_the_next_start(
    service: ServiceProcess,
) -> None:
    good = service.upload(MANY_ROWS).json()
    bad = service.upload(MANY_ROWS + b"no row\n").json()
    assert (good["status"], bad["status"]) == ("validating", "validating")
    spec = {"kind": "finetune", "name": "sums", "base_model": "tiny", "data": {"train": good["id"]}}
    job_id = service.client.post("/v1/jobs", json=spec).json()["id"]
    checks = until(lambda: children(service.process.pid))

    service.kill()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in checks))
    service.start()

    def status(file: dict[str, Any]) -> str | None:
        found: str = service.get(f"/v1/files/{file['id']}")["status"]
        return found if found != "validating" else None

    assert until(lambda: status(good)) == "ready"
    assert until(lambda: status(bad)) == "invalid"
    assert service.get(f"/v1/files/{good['id']}")["num_rows"] == 400_000
    assert service.get(f"/v1/files/{bad['id']}")["errors"][0]["line"] == 400_001
    assert service.get(f"/v1/jobs/{job_id}")["status"] == "queued"
    until(lambda: stored_names(service) == [good["sha256"]])


def test_a_service_that_is_stopped_while_it_validates_ends_promptly_and_whole(
    service: ServiceProcess,
) -> None:
    service.upload(MANY_ROWS)
    checks = until(lambda: children(service.process.pid))

    assert service.terminate() < 10

    assert not any(Path(f"/proc/{pid}").exists() for pid in checks)
    assert "Traceback" not in service.log()


def children(pid: int) -> list[int]:
    """Processes that one has started."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found

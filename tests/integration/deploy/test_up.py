"""`hyplora up`: loopback only, tokens on, and nothing left behind."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deploy.home import StackError, StackPorts
from deploy.local import LocalStack
from deploy.processes import free_ports
from service.client import Client

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def running(home: Path) -> Iterator[subprocess.Popen[str]]:
    """`hyplora up` in a process of its own, once it says that it is ready."""
    command = [sys.executable, "-m", "service.cli", "up", "--home", str(home)]
    command += ["--port", "0", "--mlflow-port", "0", "--dashboard-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = ""
        for line in process.stdout:
            printed += line
            if line.startswith("Ready"):
                break
        assert process.poll() is None, printed
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def test_the_secrets_are_readable_by_their_owner_alone(
    running: subprocess.Popen[str], home: Path
) -> None:
    for name in ("token", "ray-token"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600


def test_the_key_in_the_file_is_an_administrators(
    running: subprocess.Popen[str], home: Path
) -> None:
    url = json.loads((home / "endpoint.json").read_text())["url"]

    with Client(url, (home / "token").read_text()) as client:
        (key,) = client.keys.list().data

    assert (key.name, key.scopes) == ("embedded stack", ["admin"])


def test_everything_listens_on_loopback_only(running: subprocess.Popen[str]) -> None:
    addresses = {
        connection.laddr.ip
        for process in [*psutil.Process(running.pid).children(recursive=True)]
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses
    assert addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_neither_ray_nor_the_api_answers_without_a_token(
    running: subprocess.Popen[str], home: Path
) -> None:
    endpoint = json.loads((home / "endpoint.json").read_text())
    for url in (f"{endpoint['ray_dashboard_url']}/api/jobs/", f"{endpoint['url']}/v1/jobs"):
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(url, timeout=30)  # noqa: S310
        assert refusal.value.code == 401
        refusal.value.close()


def test_a_second_stack_on_the_same_folder_is_refused(
    running: subprocess.Popen[str], home: Path
) -> None:
    with pytest.raises(StackError, match="another stack runs on"):
        LocalStack(home, StackPorts(0, 0, 0))


def test_a_taken_port_is_named_with_the_option_that_changes_it(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        holder.listen()
        with pytest.raises(StackError, match=f"port {port} is taken.*--mlflow-port 0"):
            LocalStack(tmp_path, StackPorts(0, port, 0))


def test_ctrl_c_leaves_no_process_behind(running: subprocess.Popen[str], home: Path) -> None:
    """Comes last: the stack of the tests above ends here."""
    processes = psutil.Process(running.pid).children(recursive=True)
    assert len(processes) >= 3
    os.kill(running.pid, signal.SIGINT)
    assert running.wait(60) == 0
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert not alive
    assert not (home / "endpoint.json").exists()

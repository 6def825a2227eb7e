"""The command line against the real service in a process of its own, with neither Ray nor MLflow.

A job stays queued then, until it is cancelled.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.api_key import ensure_api_key
from service.client import Client, ServiceUnreachableError

pytestmark = pytest.mark.integration

ROW = '{"instruction": "add", "input": "1 1", "output": "2"}\n'
SPEC = """\
kind: finetune
name: sums
base_model: org/base
adapter:
  curvature: 1
data:
  train: rows.jsonl
"""


class Service:
    """A service on a port of its own; may be stopped and started again."""

    def __init__(self, home: Path) -> None:
        self.home = home
        with socket.socket() as holder, socket.socket() as nothing:
            holder.bind(("127.0.0.1", 0))
            nothing.bind(("127.0.0.1", 0))
            self.port = holder.getsockname()[1]
            silent = f"http://127.0.0.1:{nothing.getsockname()[1]}"
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = os.environ | {
            "HYPLORA_HOME": str(home),
            "HYPLORA_RAY_ADDRESS": silent,
            "HYPLORA_MLFLOW_TRACKING_URI": silent,
            "HYPLORA_POLL_INTERVAL_S": "0.1",
        }
        for variable in ("HYPLORA_URL", "HYPLORA_TOKEN"):
            self.environment.pop(variable, None)
        self.key = ensure_api_key(home / "token", f"sqlite+aiosqlite:///{home}/hyplora.db")
        (home / "endpoint.json").write_text(json.dumps({"url": self.url}))
        self.start()

    def start(self) -> None:
        command = ["uvicorn", "--factory", "service.app:create_app", "--port", str(self.port)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with Client(self.url, self.key) as client:
            deadline = time.monotonic() + 60
            while True:
                try:
                    client.ready()
                except ServiceUnreachableError:
                    assert time.monotonic() < deadline
                    assert self.process.poll() is None
                    time.sleep(0.1)
                else:
                    return

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)

    def command(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "service.cli", *map(str, arguments)]

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("home"))
    yield service
    service.stop()


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text(ROW * 3)
    path = tmp_path / "job.yaml"
    path.write_text(SPEC)
    return path


def statuses(printed: str) -> list[str]:
    """The status of every line, without the time before it and the reason after it."""
    return [line[10:].partition(":")[0] for line in printed.splitlines()]


def test_a_job_is_submitted_shown_listed_cancelled_and_followed(
    service: Service, spec: Path
) -> None:
    submitted = service.run("submit", spec, "--set", "training.learning_rate=3e-4")
    assert submitted.returncode == 0, submitted.stderr
    assert "3 rows" in submitted.stderr
    job_id = submitted.stdout.strip()

    shown = json.loads(service.run("show", job_id, "--json").stdout)
    assert shown["status"] == "queued"
    assert shown["spec"]["training"]["learning_rate"] == 3e-4
    assert job_id in service.run("jobs", "--status", "queued").stdout
    assert service.run("logs", job_id).stdout == ""

    assert service.run("cancel", job_id, "--wait").stdout == f"{job_id} cancelled\n"
    followed = service.run("follow", job_id)
    assert followed.returncode == 3
    assert statuses(followed.stdout) == ["queued", "cancelled"]
    again = service.run("cancel", job_id)
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)


def test_faults_of_a_spec_are_lines_of_its_file(service: Service, spec: Path) -> None:
    spec.write_text(SPEC.replace("curvature: 1", "curvature: 0\n  rank: 4"))
    refused = service.run("submit", spec, "--set", "training.max_steps=0")
    assert refused.returncode == 1
    assert f"  {spec}:5: adapter.curvature: " in refused.stderr
    assert f"  {spec}:6: adapter.rank: " in refused.stderr
    assert "  --set training.max_steps: training.max_steps: " in refused.stderr


def test_faults_of_a_data_set_are_lines_of_its_file(service: Service, spec: Path) -> None:
    rows = spec.parent / "rows.jsonl"
    rows.write_text(ROW + '{"instruction": "add"}\n')
    refused = service.run("submit", spec)
    assert refused.returncode == 1
    assert f"{rows}:2: output" in refused.stderr


@pytest.mark.parametrize("command", ["show", "logs", "cancel", "follow"])
def test_a_job_that_does_not_exist_is_one_line(command: str, service: Service) -> None:
    refused = service.run(command, "job-0000000000000000")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: ")
    assert refused.stderr.count("\n") == 1


def test_another_key_is_refused(service: Service, tmp_path: Path) -> None:
    refused = subprocess.run(
        service.command("jobs"),
        env={**service.environment, "HYPLORA_TOKEN": "other"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (refused.returncode, refused.stderr) == (
        1,
        f"error: {service.url} refuses the API key from HYPLORA_TOKEN: "
        "this API key is not known here; `hyplora keys create` makes one\n",
    )


def test_following_outlives_a_restart_of_the_service(service: Service, spec: Path) -> None:
    job_id = service.run("submit", spec).stdout.strip()
    follower = subprocess.Popen(
        service.command("follow", job_id),
        env=service.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert follower.stdout is not None
    assert follower.stdout.readline().endswith("queued\n")
    service.stop()
    assert "trying to connect again" in follower.stdout.readline()
    service.start()
    service.run("cancel", job_id)
    rest, _ = follower.communicate(timeout=60)
    assert statuses(rest) == ["cancelled"], "nothing comes twice"
    assert follower.returncode == 3


def test_ctrl_c_leaves_a_job_as_it_is(service: Service, spec: Path) -> None:
    job_id = service.run("submit", spec).stdout.strip()
    follower = subprocess.Popen(
        service.command("follow", job_id),
        env=service.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert follower.stdout is not None
    follower.stdout.readline()
    follower.send_signal(signal.SIGINT)
    _, notes = follower.communicate(timeout=60)
    assert follower.returncode == 130
    assert f"hyplora cancel {job_id}" in notes
    assert service.run("cancel", job_id, "--wait").returncode == 0

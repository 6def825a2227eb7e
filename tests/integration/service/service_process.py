"""The service as a process of its own, with Ray and MLflow down."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from deploy.api_key import ensure_api_key

ROWS = b'{"instruction": "Add 2 and 3.", "output": "5"}\n'


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ServiceProcess:
    """`python -m uvicorn --factory service.app:create_app` on a port and a folder of its own."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.home = home
        self.port = free_port()
        nobody = f"http://127.0.0.1:{free_port()}"
        self.environment = {
            **os.environ,
            "HYPLORA_HOME": str(home),
            "HYPLORA_RAY_ADDRESS": nobody,
            "HYPLORA_MLFLOW_TRACKING_URI": nobody,
            "HYPLORA_POLL_INTERVAL_S": "0.05",
            **environment,
        }
        self.key = ensure_api_key(home / "token", f"sqlite+aiosqlite:///{home}/hyplora.db")
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}",
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=30,
            trust_env=False,
        )

    def start(self, preexec: Callable[[], None] | None = None) -> None:
        """Begin the process and wait until it answers."""
        command = ["uvicorn", "--factory", "service.app:create_app", "--port", str(self.port)]
        with (self.home / "service.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command],
                env=self.environment,
                stdout=log,
                stderr=log,
                preexec_fn=preexec,
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log()
            try:
                self.client.get("/healthz")
            except httpx.TransportError:
                time.sleep(0.05)
            else:
                return
        raise TimeoutError(self.log())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def terminate(self) -> float:
        """Ask the process to end, as an operator does, and return the seconds that it took."""
        began = time.monotonic()
        self.process.terminate()
        self.process.wait(30)
        return time.monotonic() - began

    def close(self) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.kill()

    def log(self) -> str:
        return (self.home / "service.log").read_text()

    def upload(self, content: bytes = ROWS) -> httpx.Response:
        return self.client.post("/v1/files", files={"file": ("rows.jsonl", content)})

    def submit(self) -> str:
        spec = {
            "kind": "finetune",
            "name": "sums",
            "base_model": "tiny",
            "data": {"train": self.upload().json()["id"]},
        }
        response = self.client.post("/v1/jobs", json=spec)
        assert response.status_code == 201, response.text
        return str(response.json()["id"])

    def get(self, path: str) -> dict[str, Any]:
        response = self.client.get(path)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

"""An embedded stack on a real PostgreSQL whose parts tests kill and start again."""

import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from deploy.api_key import ensure_api_key
from deploy.home import StackPorts
from deploy.local import LocalStack
from deploy.processes import ChildProcess, ProcessError, free_ports
from service.client import Client
from tests.postgres import PostgresServer

_GONE_TIMEOUT_S = 60.0
_RAY_STARTS = 4
_RAY_STARTED = "Ray runtime started"


class FaultStack(LocalStack):
    """Ray, MLflow, PostgreSQL and one or more service processes; close it with `stop`.

    Args:
        home: Folder for all state.
        num_cpus: CPUs that Ray counts with, however many there are.
        folders: What jobs may read.
        settings: Of the service, by their names in the environment without HYPLORA_.
    """

    def __init__(
        self, home: Path, num_cpus: int, folders: Sequence[Path] = (), **settings: str
    ) -> None:
        self._num_cpus = num_cpus
        self.replicas: list[Replica] = []
        self.postgres = PostgresServer()
        self._environment = pytest.MonkeyPatch()
        try:
            self.database_url = self.postgres.create_database()
            self._environment.setenv("HYPLORA_DATABASE_URL", self.database_url)
            self._environment.setenv("XDG_CACHE_HOME", str(home / "cache"))
            for name, value in settings.items():
                self._environment.setenv(f"HYPLORA_{name}", value)
            super().__init__(home, StackPorts(0, 0, 0), folders)
        except BaseException:
            self._environment.undo()
            self.postgres.close()
            raise

    def start_parts(self) -> None:
        """Start what the service needs, and make a key for it."""
        self.start_ray()
        self.start_mlflow()
        self.await_ready("ray")
        self.await_ready("mlflow")
        self.token = ensure_api_key(self.home / "token", self.database_url)

    def start_ray(self) -> None:
        """Start the Ray head; it gives a busy machine half a minute, and may need another try."""
        log_path = self.home / "logs" / "ray.log"
        for _ in range(_RAY_STARTS):
            log_path.unlink(missing_ok=True)
            super().start_ray()
            child = self.children["ray"]
            while is_alive(child):
                if _RAY_STARTED in log_path.read_text(errors="replace"):
                    return
                time.sleep(0.1)
            self.kill("ray")
        raise AssertionError(f"Ray does not start: {child.log_tail()}")

    def add_replica(self, **settings: str) -> "Replica":
        """Start one more service process; it answers once this returns."""
        replica = Replica(self, len(self.replicas), settings)
        self.replicas.append(replica)
        replica.await_answer()
        return replica

    def query(self, statement: str) -> str:
        """Run SQL in the service's database and return what it prints."""
        return self.postgres.execute(statement, self.database_url.split("/")[3].split("?")[0])

    def service_environment(self) -> dict[str, str]:
        """What a service process of this stack finds in its environment."""
        return self._service_environment()

    def kill(self, name: str) -> None:
        """End a part and all that it has started at once, as the crash of its machine would."""
        if name == "postgres":
            self.postgres.stop(signal.SIGQUIT)
            return
        child = self.children.pop(name)
        try:
            processes = psutil.Process(child.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            processes = []
        child.kill()
        end_all(processes)

    def start_again(self, name: str) -> None:
        """Start a part that was killed, where it was, and wait until it answers."""
        if name == "postgres":
            self.postgres.start()
            return
        getattr(self, f"start_{name}")()
        self.await_ready(name)

    def ray_jobs(self) -> list[dict[str, Any]]:
        """Every driver that Ray knows of."""
        return [job for job in self.ask_ray("GET", "") if job["type"] == "SUBMISSION"]

    def ask_ray(self, method: str, path: str, body: object = None) -> Any:
        """Answer of Ray's Jobs API."""
        url = f"{self.ray_dashboard_url}/api/jobs/{path}"
        with httpx.Client(headers=self.ray_headers(), timeout=60, trust_env=False) as client:
            return client.request(method, url, json=body).raise_for_status().json()

    def drivers(self) -> list[str]:
        """The processes under the Ray head that are drivers of jobs."""
        found = psutil.Process(self.children["ray"].pid).children(recursive=True)
        return [" ".join(command) for command in map(command_of, found) if "jobs." in command[-1]]

    def stop(self) -> None:
        """Stop everything."""
        try:
            for replica in self.replicas:
                replica.stop()
            super().stop()
        finally:
            self._environment.undo()
            self.postgres.close()

    def _spawn(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        own = [f"--num-cpus={self._num_cpus}"] if name == "ray" else []
        super()._spawn(name, [*command, *own], environment)


class Replica:
    """One of several service processes of a stack."""

    def __init__(self, stack: FaultStack, number: int, settings: dict[str, str]) -> None:
        (port,) = free_ports(1)
        command = [sys.executable, "-m", "uvicorn", "--factory", "service.app:create_app"]
        environment = stack.service_environment() | {
            f"HYPLORA_{name}": value for name, value in settings.items()
        }
        self._log_path = stack.home / "logs" / f"replica-{number}-{port}.log"
        self.process = ChildProcess(
            f"replica {number}", [*command, "--port", str(port)], environment, self._log_path
        )
        self.client = Client(f"http://127.0.0.1:{port}", stack.token)

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    def log(self) -> str:
        """What it has written."""
        return self._log_path.read_text(errors="replace")

    def await_answer(self) -> None:
        """Wait until it answers."""
        until(lambda: _answers(f"{self.client.url}/healthz"), "the replica's answer")

    def stop(self) -> None:
        """End it, even where it is suspended."""
        self.client.close()
        self.process.kill()


def is_alive(child: ChildProcess) -> bool:
    """Whether a child runs."""
    try:
        child.require_alive()
    except ProcessError:
        return False
    return True


def until(condition: Callable[[], object], what: str, timeout_s: float = 900.0) -> None:
    """Wait for something; a test that waits in vain says for what."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:.0f} s in vain for {what}")
        time.sleep(0.25)


def end_all(processes: list[psutil.Process]) -> None:
    """Kill processes and wait until they are gone."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    _, left = psutil.wait_procs(processes, _GONE_TIMEOUT_S)
    assert not left


def command_of(process: psutil.Process) -> list[str]:
    """How a process was started; one empty word if it is gone."""
    try:
        return process.cmdline() or [""]
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return [""]


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).is_success
    except httpx.TransportError:
        return False

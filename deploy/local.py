"""The embedded stack: Ray head, MLflow server and API on one machine, from one command.

Everything listens on loopback only, Ray and the API ask for secrets, and all state lies under one
folder. `hyplora up` runs this module; the demo and the tests start the same stack from Python.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from pydantic import ValidationError
from rich.console import Console

from deploy.api_key import ensure_api_key
from deploy.home import StackError, StackPorts, ensure_secret, lock_home
from deploy.processes import ChildProcess, ProcessError, free_ports
from service.settings import ServiceSettings, describe_faults

_HOST = "127.0.0.1"
_START_TIMEOUT_S = 180.0
_OBJECT_STORE_BYTES = 256 * 2**20
_GRACE_S = 20.0
_RAY_GRACE_S = 5.0
"""Ray without jobs stops in three seconds; after a job it waits half a minute for helper actors."""


class LocalStack:
    """The three servers as child processes; stop it in a `finally`, or use it as a context.

    Args:
        home: Folder for all state.
        ports: Where the servers listen.
        folders: Where jobs may read base models, adapters and rows; by default as
            HYPLORA_ALLOWED_FOLDERS says, else nowhere.
    """

    def __init__(self, home: Path, ports: StackPorts, folders: Sequence[Path] = ()) -> None:
        self.home = home.expanduser().resolve()
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._ports = ports.resolved()
        self._folders = [str(folder.expanduser().absolute()) for folder in folders]
        self._lock = lock_home(self.home)
        self._ray_token_path = self.home / "ray-token"
        ensure_secret(self._ray_token_path)
        # Not under home: the paths of Ray's sockets must stay under 107 bytes.
        self._ray_folder = Path(tempfile.mkdtemp(prefix="hyplora-ray-"))
        self.token = ""  # nosec B105 # none yet
        """API key of an administrator, known once the service was started."""
        self.children: dict[str, ChildProcess] = {}

    @property
    def api_url(self) -> str:
        """Where the control plane answers."""
        return f"http://{_HOST}:{self._ports.api}"

    @property
    def mlflow_url(self) -> str:
        """Where MLflow's page and registry are."""
        return f"http://{_HOST}:{self._ports.mlflow}"

    @property
    def ray_dashboard_url(self) -> str:
        """Where Ray's dashboard and Jobs API are."""
        return f"http://{_HOST}:{self._ports.ray_dashboard}"

    def start(self, announce: Callable[[str], None] = lambda _line: None) -> None:
        """Start all three servers and wait until they answer.

        Raises:
            StackError: If one of them does not come up.
        """
        announce("starting Ray, MLflow and the API (the first start takes about half a minute)")
        self.start_ray()
        self.start_mlflow()
        self.await_ready("ray")
        announce(f"Ray dashboard  {self.ray_dashboard_url}")
        self.await_ready("mlflow")
        announce(f"MLflow         {self.mlflow_url}")
        self.start_service()
        self.await_ready("service")
        announce(f"API            {self.api_url}/docs")
        endpoint = {
            "url": self.api_url,
            "mlflow_tracking_uri": self.mlflow_url,
            "ray_dashboard_url": self.ray_dashboard_url,
        }
        (self.home / "endpoint.json").write_text(json.dumps(endpoint, indent=2) + "\n")

    def start_ray(self) -> None:
        """Start the Ray head node with its dashboard."""
        gcs, client, agent_http, agent_grpc, runtime_env, metrics = free_ports(6)
        options = {
            "port": gcs,
            "node-ip-address": _HOST,
            "dashboard-host": _HOST,
            "dashboard-port": self._ports.ray_dashboard,
            "ray-client-server-port": client,
            "dashboard-agent-listen-port": agent_http,
            "dashboard-agent-grpc-port": agent_grpc,
            "runtime-env-agent-port": runtime_env,
            "metrics-export-port": metrics,
            "min-worker-port": 0,
            "max-worker-port": 0,
            "object-store-memory": _OBJECT_STORE_BYTES,
            "temp-dir": self._ray_folder,
        }
        command = [_script("ray"), "start", "--head", "--block", "--disable-usage-stats"]
        command += [f"--{name}={value}" for name, value in options.items()]
        self._spawn("ray", command, self._ray_environment())

    def start_mlflow(self) -> None:
        """Start the MLflow tracking server and model registry on SQLite and a folder."""
        folder = self.home / "mlflow"
        folder.mkdir(exist_ok=True)
        command = [
            *(_script("mlflow"), "server", "--host", _HOST, "--port", str(self._ports.mlflow)),
            *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
            *("--artifacts-destination", str(folder / "artifacts"), "--workers", "1"),
        ]
        # Nothing here uses MLflow's own job runner, which costs 0.7 GB.
        environment = _environment() | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self._spawn("mlflow", command, environment)

    def start_service(self) -> None:
        """Start the control plane; without a valid key in its file, make one first.

        Raises:
            StackError: If a HYPLORA_* variable is not valid.
        """
        try:
            settings = ServiceSettings(home=self.home)
        except ValidationError as error:
            raise StackError(describe_faults(error)) from error
        self.token = ensure_api_key(self.home / "token", settings.database_url)
        command = [
            *(sys.executable, "-m", "uvicorn", "--factory", "service.app:create_app"),
            *("--host", _HOST, "--port", str(self._ports.api), "--log-level", "warning"),
        ]
        self._spawn("service", command, self._service_environment())

    def await_ready(self, name: str) -> None:
        """Wait until a started server answers; the API answers once it reaches the other two.

        Args:
            name: `ray`, `mlflow` or `service`.

        Raises:
            StackError: If any server ended, or this one does not answer in time.
        """
        url = {
            "ray": f"{self.ray_dashboard_url}/api/version",
            "mlflow": f"{self.mlflow_url}/health",
            "service": f"{self.api_url}/readyz",
        }[name]
        headers = self.ray_headers() if name == "ray" else {}
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            self._require_alive()
            if _answers(url, headers):
                return
            time.sleep(0.2)
        tail = self.children[name].log_tail()
        raise StackError(f"{name} did not answer within {_START_TIMEOUT_S:.0f} s:\n{tail}")

    def supervise(self) -> NoReturn:
        """Block until a server ends.

        Raises:
            StackError: When one has ended, with the end of its log.
        """
        while True:
            self._require_alive()
            time.sleep(1.0)

    def stop(self) -> None:
        """Stop everything that was started, the API first, and free the state folder."""
        for name in ("service", "ray", "mlflow"):
            if child := self.children.pop(name, None):
                child.stop(_RAY_GRACE_S if name == "ray" else _GRACE_S)
        (self.home / "endpoint.json").unlink(missing_ok=True)
        shutil.rmtree(self._ray_folder, ignore_errors=True)
        self._lock.close()

    def __enter__(self) -> "LocalStack":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def client_environment(self) -> dict[str, str]:
        """Environment in which the CLI, Ray's and MLflow's clients find this stack."""
        return self._ray_environment() | {
            "HYPLORA_HOME": str(self.home),
            "MLFLOW_TRACKING_URI": self.mlflow_url,
        }

    def ray_headers(self) -> dict[str, str]:
        """Return the headers with which the Ray dashboard lets a client in."""
        return {"Authorization": f"Bearer {self._ray_token_path.read_text().strip()}"}

    def _spawn(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        log_path = self.home / "logs" / f"{name}.log"
        self.children[name] = ChildProcess(name, command, environment, log_path)

    def _require_alive(self) -> None:
        try:
            for child in self.children.values():
                child.require_alive()
        except ProcessError as error:
            raise StackError(str(error)) from error

    def _ray_environment(self) -> dict[str, str]:
        return _environment() | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self._ray_token_path),
            # Else Ray rewrites the loopback address to the machine's own.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            # Jobs never install packages; without uv's hook Ray starts workers plainly.
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        }

    def _service_environment(self) -> dict[str, str]:
        folders = {"HYPLORA_ALLOWED_FOLDERS": ",".join(self._folders)} if self._folders else {}
        return (
            self._ray_environment()
            | folders
            | {
                "HYPLORA_HOME": str(self.home),
                "HYPLORA_RAY_ADDRESS": self.ray_dashboard_url,
                "HYPLORA_MLFLOW_TRACKING_URI": self.mlflow_url,
            }
        )


def _environment() -> dict[str, str]:
    """This process's environment, with its own interpreter's programs first."""
    folder = str(Path(sys.executable).parent)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return kept | {"PATH": os.pathsep.join((folder, os.environ.get("PATH", "")))}


def _script(name: str) -> str:
    """Path of a console script installed beside this interpreter."""
    return str(Path(sys.executable).with_name(name))


def _answers(url: str, headers: dict[str, str]) -> bool:
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 (own http URL)
    try:
        with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310  # nosec B310 # own http URL
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the process like Ctrl-C, so that `finally` blocks run."""

    def interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def main() -> int:
    """Run the stack until Ctrl-C; returns the process's exit code."""
    parser = argparse.ArgumentParser(prog="hyplora up", description=__doc__)
    default_home = Path(os.environ.get("HYPLORA_HOME", "~/.hyplora"))
    ports = StackPorts()
    parser.add_argument("--home", type=Path, default=default_home, help="folder for all state")
    parser.add_argument("--port", type=int, default=ports.api, help="API port; 0 takes a free one")
    parser.add_argument("--mlflow-port", type=int, default=ports.mlflow)
    parser.add_argument("--dashboard-port", type=int, default=ports.ray_dashboard)
    options = parser.parse_args()
    console = Console()
    folders = [] if os.environ.get("HYPLORA_ALLOWED_FOLDERS") else [Path.cwd()]
    try:
        with terminate_as_interrupt():
            wanted = StackPorts(options.port, options.mlflow_port, options.dashboard_port)
            with LocalStack(options.home, wanted, folders) as stack:
                stack.start(console.print)
                console.print(f"API key        {stack.home / 'token'}")
                if folders:
                    console.print(f"Jobs may read  {folders[0]} (HYPLORA_ALLOWED_FOLDERS)")
                console.print(
                    f"Ray token      {stack.home / 'ray-token'} (the dashboard asks for it)"
                )
                console.print("Ready; Ctrl-C stops everything.")
                stack.supervise()
    except StackError as error:
        console.print(f"[red]error:[/red] {error}", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("stopped")
        return 0


if __name__ == "__main__":
    sys.exit(main())

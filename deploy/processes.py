"""Child processes that end with their parent, and the free ports they listen on."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LOG_TAIL_LINES = 20


class ProcessError(Exception):
    """A child process did not start or did not stay alive."""


def free_ports(count: int) -> list[int]:
    """Reserve `count` distinct free loopback ports, and release them for the caller to use."""
    with contextlib.ExitStack() as sockets:
        ports = []
        for _ in range(count):
            listener = sockets.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            ports.append(int(listener.getsockname()[1]))
        return ports


def is_port_free(port: int) -> bool:
    """Tell whether a server could listen on this loopback port now."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class ChildProcess:
    """One named child whose output goes to a log file.

    It runs in a session of its own, so that Ctrl-C reaches the parent alone, which then stops its
    children in order. On Linux it gets SIGTERM when the parent dies without having done so.
    """

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], log_path: Path
    ) -> None:
        self.name = name
        self.log_path = log_path
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                list(command),
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent(),
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def require_alive(self) -> None:
        """Raise `ProcessError` with the end of the log if the child has ended."""
        if self._process.poll() is not None:
            raise ProcessError(
                f"{self.name} ended with exit code {self._process.returncode}; the end of its log "
                f"({self.log_path}):\n{self.log_tail()}"
            )

    def log_tail(self) -> str:
        """Last lines of the log."""
        lines = self.log_path.read_text(errors="replace").splitlines()
        return "\n".join(lines[-_LOG_TAIL_LINES:])

    def stop(self, grace_s: float) -> None:
        """End the child: SIGTERM, then SIGKILL to its session after the grace time."""
        if self._process.poll() is None:
            # Only the child itself: it ends its own children, and Ray's hang if signalled directly.
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def kill(self) -> None:
        """End the child at once, as a crash would."""
        self._process.kill()
        self._process.wait()


def end_with_parent() -> Callable[[], None] | None:
    """Ask the kernel to signal the child when its parent dies (Linux only)."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def set_death_signal() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # the parent died between fork and prctl
            os._exit(1)

    return set_death_signal

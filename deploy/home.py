"""What one embedded stack holds alone: its state folder, its secrets and its ports."""

import fcntl
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from deploy.processes import free_ports, is_port_free


class StackError(Exception):
    """The stack cannot run; the message says why and what to do."""


@dataclass(frozen=True)
class StackPorts:
    """Ports that users open; zero takes a free one."""

    api: int = 8800
    mlflow: int = 5000
    ray_dashboard: int = 8265

    def resolved(self) -> "StackPorts":
        """Replace zeros by free ports.

        Raises:
            StackError: If a named port is taken.
        """
        spare = iter(free_ports(3))
        options = ("--port", "--mlflow-port", "--dashboard-port")
        chosen = [port or next(spare) for port in (self.api, self.mlflow, self.ray_dashboard)]
        for option, port in zip(options, chosen, strict=True):
            if not is_port_free(port):
                raise StackError(f"port {port} is taken: stop its holder or pass {option} 0")
        return StackPorts(*chosen)


def ensure_secret(path: Path) -> str:
    """Read the secret in this file, or make one that only its owner can read."""
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32))
    return path.read_text().strip()


def lock_home(home: Path) -> TextIO:
    """Hold the state folder for as long as the returned file is open.

    Raises:
        StackError: If another stack holds it.
    """
    lock = (home / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise StackError(f"another stack runs on {home}; stop it or pass another --home") from error
    return lock

"""Where the service is and what opens it: `--url`, HYPLORA_* variables and the home folder.

The embedded stack writes both files that are read here: `endpoint.json` while it runs, and `token`.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import httpx
import typer

from service.cli.errors import CliError
from service.client import Client, ProblemError, ServiceUnreachableError
from service.connection import is_loopback

Url = Annotated[
    str | None,
    typer.Option(
        envvar="HYPLORA_URL",
        help="Address of the service; by default that of the stack under HYPLORA_HOME.",
        show_default=False,
    ),
]
"""The option of every command that talks to a service."""


@dataclass(frozen=True)
class Endpoint:
    """A service and the API key for it."""

    url: str
    """Address of the API, without a trailing slash."""

    token: str
    """API key."""

    token_source: str
    """Where the token was read, for messages about a token that is refused."""


def home_folder() -> Path:
    """Folder of the embedded stack: HYPLORA_HOME, by default ~/.hyplora."""
    return Path(os.environ.get("HYPLORA_HOME") or "~/.hyplora").expanduser()


@contextmanager
def connect(url: str | None) -> Iterator[Client]:
    """Open a client of the service that the user means.

    Raises:
        CliError: If it cannot be found or reached, or refuses the API key.
    """
    endpoint = find_endpoint(url)
    with Client(endpoint.url, endpoint.token) as client:
        try:
            yield client
        except ServiceUnreachableError as error:
            raise CliError(f"{error}: start a service with `hyplora up`, or check --url") from error
        except ProblemError as error:
            if error.status != httpx.codes.UNAUTHORIZED:
                raise
            raise CliError(
                f"{endpoint.url} refuses the API key from {endpoint.token_source}: {error}"
            ) from error


def find_endpoint(url: str | None) -> Endpoint:
    """Find the service that commands talk to.

    Args:
        url: Address that the user gave; without it, the stack that runs under `home_folder()`.

    Raises:
        CliError: If no stack runs there, the address is none, or no token is found.
    """
    home = home_folder()
    checked = _checked_url(url or _url_of_running_stack(home))
    token, source = _find_token(home, checked)
    if not re.fullmatch(r"[!-~]+", token):
        raise CliError(f"the token from {source} is damaged: it holds spaces or unprintable bytes")
    return Endpoint(str(checked).rstrip("/"), token, source)


def _url_of_running_stack(home: Path) -> str:
    path = home / "endpoint.json"
    try:
        return str(json.loads(path.read_text())["url"])
    except FileNotFoundError:
        raise CliError(
            f"no service runs under {home}: start one with `hyplora up`, "
            "or name one with --url or HYPLORA_URL"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise CliError(f"{path} is damaged: restart the service with `hyplora up`") from error


def _checked_url(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL()
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise CliError(f"{url!r} is no address: give one such as http://127.0.0.1:8800")
    return parsed


def _find_token(home: Path, url: httpx.URL) -> tuple[str, str]:
    """Return the token and where it came from."""
    if token := os.environ.get("HYPLORA_TOKEN", "").strip():
        return token, "HYPLORA_TOKEN"
    path = home / "token"
    if not is_loopback(url.host):
        # The token of the stack on this machine must not reach another one.
        raise CliError(f"set HYPLORA_TOKEN to a token of {url}; {path} is for this machine alone")
    try:
        token = path.read_text().strip()
    except FileNotFoundError:
        token = ""  # nosec B105 # none: refused below
    except UnicodeDecodeError:
        raise CliError(f"{path} holds no token") from None
    if not token:
        raise CliError(f"no token for {url}: set HYPLORA_TOKEN, or HYPLORA_HOME to its folder")
    return token, str(path)

"""Commands about the stack itself: start it on this machine, and tell a shell where it is."""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from service.cli.console import result
from service.cli.endpoint import Url, connect, find_endpoint, home_folder


def up(
    home: Annotated[
        Path | None,
        typer.Option(
            help="Folder for all state; by default HYPLORA_HOME or ~/.hyplora.",
            file_okay=False,
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of the API.", show_default="8800")
    ] = None,
    mlflow_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of MLflow.", show_default="5000")
    ] = None,
    dashboard_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port of the Ray dashboard.", show_default="8265"),
    ] = None,
) -> None:
    """Start Ray, MLflow and the API on this machine; Ctrl-C stops them.

    Everything listens on the loopback interface only. A port of 0 takes a free one.
    """
    # The stack lies above this package, which therefore becomes it instead of importing it.
    # -P keeps a folder named `deploy` in the working directory from being taken for the package.
    command = [sys.executable, "-P", "-m", "deploy.local", "--home", str(home or home_folder())]
    ports = {"--port": port, "--mlflow-port": mlflow_port, "--dashboard-port": dashboard_port}
    for option, value in ports.items():
        if value is not None:
            command += [option, str(value)]
    os.execv(sys.executable, command)  # noqa: S606  # nosec B606 # a list of our own, no shell


def env(url: Url = None) -> None:
    """Print what a shell needs for curl, Python and MLflow; use: eval "$(hyplora env)"."""
    with connect(url) as client:
        tracking_uri = client.info().mlflow_tracking_uri
    endpoint = find_endpoint(url)
    variables = {
        "HYPLORA_URL": endpoint.url,
        "HYPLORA_TOKEN": endpoint.token,
        "MLFLOW_TRACKING_URI": tracking_uri,
    }
    for name, value in variables.items():
        result(f"export {name}={shlex.quote(value)}")

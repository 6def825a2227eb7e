"""Commands about finished adapters: pull one out of the registry, and let one answer."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from service.cli.adapters import (
    ModelReference,
    base_model_of,
    loading_snippet,
    pull_adapter,
    require_empty,
)
from service.cli.console import note, result
from service.cli.endpoint import Url, connect
from service.cli.errors import CliError


def pull(
    reference: Annotated[
        str,
        typer.Argument(
            metavar="NAME@ALIAS|NAME/VERSION",
            help="Registered adapter, such as arithmetic@champion or arithmetic/1.",
            show_default=False,
        ),
    ],
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Folder that is new or empty.", show_default=False),
    ],
    url: Url = None,
) -> None:
    """Download an adapter from the registry and print how to load it."""
    parsed = ModelReference.parse(reference)
    require_empty(folder)
    with connect(url) as client:
        pull_adapter(parsed, client, folder)
    note(f"pulled {parsed.uri} into {folder}; load it with:")
    result(loading_snippet(folder))


def generate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="NAME@ALIAS|NAME/VERSION|DIR",
            help="Registered adapter, or the folder of a pulled one.",
            show_default=False,
        ),
    ],
    prompts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROMPT...",
            help="Instructions to answer; without any, one a line is read from stdin.",
            show_default=False,
        ),
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option(
            help="Base model, where it lies elsewhere than it did at training.", show_default=False
        ),
    ] = None,
    no_adapter: Annotated[
        bool, typer.Option("--no-adapter", help="Let the base model alone answer, to compare.")
    ] = False,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer in tokens.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    url: Url = None,
) -> None:
    """Answer instructions with an adapter on its base model, on this machine."""
    if find_spec("torch") is None:
        raise CliError("generate needs torch, which is not installed: run pip install hyplora")
    with _adapter_folder(model, url) as (folder, environment):
        # -P keeps a folder named `workers` in the working directory from being taken for ours.
        command = [sys.executable, "-P", "-m", "workers.generate"]
        command += ["--base-model", base_model or base_model_of(folder)]
        command += [] if no_adapter else ["--adapter", str(folder)]
        command += ["--max-new-tokens", str(max_new_tokens)] if max_new_tokens else []
        command += ["--json"] if as_json else []
        command += ["--", *prompts] if prompts else []
        done = subprocess.run(command, env=_quiet(environment), check=False)
    raise typer.Exit(done.returncode)


@contextmanager
def _adapter_folder(model: str, url: str | None) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield the folder of an adapter, downloaded if need be, and the environment to load it in."""
    if Path(model).is_dir():
        yield Path(model), dict(os.environ)
        return
    try:
        reference = ModelReference.parse(model)
    except CliError as error:
        raise CliError(f"there is no folder {model}, and {error}") from error
    with tempfile.TemporaryDirectory(prefix="hyplora-") as scratch:
        folder = Path(scratch) / "adapter"
        with connect(url) as client:
            tracking_uri = client.info().mlflow_tracking_uri
            pull_adapter(reference, client, folder)
        # The base model may be one of the registry's, too.
        yield folder, {**os.environ, "MLFLOW_TRACKING_URI": tracking_uri}


def _quiet(environment: dict[str, str]) -> dict[str, str]:
    """Keep what Hugging Face's libraries tell developers out of the answers' way."""
    quiet = {"PYTHONWARNINGS": "ignore::FutureWarning"}
    if not sys.stderr.isatty():
        quiet["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    return quiet | environment

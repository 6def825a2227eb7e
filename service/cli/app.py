"""The commands of `hyplora` put together, and the edge where errors become sentences."""

import os
import sys
from importlib.metadata import version as installed_version
from typing import Annotated

import typer

from service.cli.adapter_commands import generate, pull
from service.cli.errors import CliError
from service.cli.file_commands import files
from service.cli.job_commands import (
    cancel,
    follow,
    jobs,
    logs,
    pause,
    resume,
    show,
)
from service.cli.key_commands import keys
from service.cli.model_commands import models
from service.cli.problems import problem_text
from service.cli.report_commands import report
from service.cli.run_commands import artifacts, metrics
from service.cli.stack_commands import env, up
from service.cli.submit_commands import rerun, submit, upload
from service.cli.trial_commands import trials
from service.client import ClientError, ProblemError

app = typer.Typer(
    name="hyplora",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
job_commands = (
    submit,
    rerun,
    jobs,
    show,
    trials,
    metrics,
    report,
    artifacts,
    logs,
    follow,
    pause,
    resume,
    cancel,
    upload,
)
for command in (up, env, *job_commands, pull, generate):
    app.command()(command)
app.add_typer(files)
app.add_typer(keys)
app.add_typer(models)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"hyplora {installed_version('hyplora')}")
        raise typer.Exit


@app.callback()
def hyplora(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Fine-tune language models with hyperbolic low-rank adapters, on a cluster or one machine."""


def run() -> None:
    """Run the command that `sys.argv` names and exit; nobody sees a stack trace unasked."""
    try:
        app(prog_name="hyplora")
    except ProblemError as error:
        _fail(problem_text(error))
    except (CliError, ClientError) as error:
        _fail(str(error))
    except OSError as error:
        _fail(str(error))
    except Exception as error:
        if os.environ.get("HYPLORA_TRACEBACK"):
            raise
        _fail(
            f"internal error, {type(error).__name__}: {error}\n"
            "This is a bug; HYPLORA_TRACEBACK=1 shows where it happened."
        )


def _fail(text: str) -> None:
    typer.secho("error: ", fg=typer.colors.RED, bold=True, err=True, nl=False)
    typer.echo(text, err=True)
    sys.exit(1)

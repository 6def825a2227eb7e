"""Where output goes: results to stdout, notes and errors to stderr.

Texts from the service are printed as they are: nothing in them is taken for markup.
"""

import sys

import typer
from rich.console import Console

_PIPE_WIDTH = 200
"""Columns of a table that no terminal limits, so that pipes get whole cells."""


def open_console() -> Console:
    """Return stdout as a terminal or, where it is none, as wide plain text."""
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    return Console(width=width, markup=False, highlight=False, emoji=False)


def result(text: str) -> None:
    """Print what the command was asked for."""
    typer.echo(text)


def note(text: str) -> None:
    """Print what helps a person and would disturb a script."""
    typer.echo(text, err=True)


def open_note_console() -> Console:
    """Return stderr, for displays that vanish."""
    return Console(stderr=True, markup=False, highlight=False, emoji=False)

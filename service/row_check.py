"""Reads every row of a data set and says whether it is valid.

Run as `python -m service.row_check FD` by `service.row_checks`, which hands over an open file and
reads the verdict from stdout: rows are Python objects, and reading millions of them in the
service's own process would hold up every request.
"""

import os
import signal
import sys
import threading
from typing import BinaryIO

from pydantic import BaseModel

from service.errors import FieldError
from workers.rows import RowError, iter_numbered_rows
from workers.tasks.evaluation_rows import parse_either_row

_NICENESS = 10
_STDIN = 0


class Verdict(BaseModel):
    """What was found: the number of rows, or the first that is not valid."""

    num_rows: int | None = None
    """How many there are, all of them valid."""

    problem: str | None = None
    """What is wrong, in a sentence; None if nothing is."""

    errors: list[FieldError] = []
    """The row at fault."""


def check_rows(file: BinaryIO) -> Verdict:
    """Read a data set to its end, or to the first row that is not valid.

    Args:
        file: JSON lines, plain or gzip, or Parquet, open for reading.
    """
    try:
        return Verdict(num_rows=sum(1 for _ in iter_numbered_rows(file, parse=parse_either_row)))
    except RowError as error:
        fault = FieldError(field=error.field or "row", line=error.line, message=error.problem)
        return Verdict(problem=str(error), errors=[fault])


def main() -> int:
    """Check the file of one descriptor; ends when the service does, and not before it."""
    for number in (signal.SIGINT, signal.SIGTERM):  # they may reach the service's children, too
        signal.signal(number, signal.SIG_IGN)
    os.nice(_NICENESS)
    threading.Thread(target=_end_with_service, daemon=True).start()
    with os.fdopen(int(sys.argv[1]), "rb") as file:
        verdict = check_rows(file)
    sys.stdout.write(verdict.model_dump_json())
    return 0


def _end_with_service() -> None:
    """The service holds the other end of stdin and never writes there."""
    os.read(_STDIN, 1)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())

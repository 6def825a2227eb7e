"""Writes the API's description to docs/openapi.json: `python -m service.openapi`.

A test holds the file to what the service answers at /openapi.json, so that every change of the API
is seen where it is reviewed. The version of the package is left out: it would change the file with
every release.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from service.app import create_app
from service.settings import ServiceSettings

PATH = Path(__file__).parents[1] / "docs" / "openapi.json"
COMMAND = "make openapi"


def description() -> dict[str, Any]:
    """What is committed of the API's description."""
    with tempfile.TemporaryDirectory() as home:
        described = create_app(ServiceSettings(home=Path(home))).openapi()
    return described | {"info": described["info"] | {"version": "1"}}


def text_of(described: dict[str, Any]) -> str:
    """A description as it lies in the file."""
    return json.dumps(described, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def main() -> int:
    """Write the file; returns the process's exit code."""
    PATH.write_text(text_of(description()), encoding="utf-8")
    print(f"wrote {PATH}", file=sys.stderr)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Runs the control plane as it is configured: `python -m service`."""

import sys

import uvicorn
from pydantic import ValidationError

from service.app import create_app
from service.settings import ServiceSettings, describe_faults

_GRACE_S = 10


def main() -> int:
    """Serve until SIGTERM or Ctrl-C; returns the process's exit code."""
    try:
        settings = ServiceSettings()
        app = create_app(settings)
    except ValidationError as error:
        print(f"error: {describe_faults(error)}", file=sys.stderr)  # noqa: T201 (there is no log yet)
        return 1
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_level=settings.log_level.lower(),
        timeout_graceful_shutdown=_GRACE_S,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

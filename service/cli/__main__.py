"""Starts the command line, or says which extra it needs.

Imports nothing beyond the standard library before it has looked, so that an installation of the
adapter library alone answers with a sentence.
"""

import sys

_OWN_PACKAGES = {"deploy", "hyplora", "jobs", "service", "workers"}


def main() -> None:
    """Run the command that `sys.argv` names; the console script `hyplora` calls this."""
    try:
        from service.cli.app import run
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if not missing or missing in _OWN_PACKAGES:
            raise
        sys.exit(
            f"hyplora: the command line needs {missing}, which is not installed: "
            "run pip install 'hyplora[service]'"
        )
    run()


if __name__ == "__main__":
    main()

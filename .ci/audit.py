"""Looks for known holes in the pinned dependencies, and never takes silence for an answer.

pip-audit leaves a package out, and calls the rest sound, where its service does not know it: so it
does with every package where only a mirror of the index is within reach. Before it is believed, a
service has to know the hole of an old release. Run as `python .ci/audit.py constraints.txt`.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVICES = ("pypi", "osv")
KNOWN_HOLE = "jinja2==2.4.1"
"""A release with holes that every advisory service has known for years."""

_ANSWER_TIMEOUT_S = 5
_PROBE_TIMEOUT_S = 60
_AUDIT_TIMEOUT_S = 900


@dataclass(frozen=True)
class Audit:
    """What pip-audit found; None of anything where it broke off."""

    holes: Sequence[str]
    skipped: Sequence[str]
    num_audited: int

    @property
    def is_whole(self) -> bool:
        """Whether every package was looked at."""
        return not self.skipped and self.num_audited > 0


def read(output: str) -> Audit | None:
    """What pip-audit wrote as JSON; None if it wrote none."""
    try:
        dependencies = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return None
    audited = [each for each in dependencies if "skip_reason" not in each]
    return Audit(
        holes=[_hole(each, hole) for each in audited for hole in each["vulns"]],
        skipped=[each["name"] for each in dependencies if "skip_reason" in each],
        num_audited=len(audited),
    )


def _hole(package: Mapping[str, Any], hole: Mapping[str, Any]) -> str:
    fixed = ", ".join(hole["fix_versions"]) or "no release yet"
    return f"{package['name']} {package['version']}: {hole['id']}, fixed in {fixed}"


def can_be_believed(probe: Audit | None) -> bool:
    """Whether a service within reach knows the hole that it was asked about."""
    return probe is not None and bool(probe.holes)


def verdict(audit: Audit | None) -> tuple[bool, str]:
    """Whether the dependencies pass, and why, once a service is known to answer."""
    if audit is None:
        return False, "the audit broke off; run it again"
    if audit.holes:
        return False, "\n".join(["known holes:", *audit.holes])
    if not audit.is_whole:
        return False, f"only a part was audited; left out: {', '.join(audit.skipped) or 'all'}"
    return True, f"{audit.num_audited} packages, no known hole"


def run_pip_audit(requirements: Path, service: str, timeout_s: float) -> Audit | None:
    """Audit pinned requirements; None if pip-audit does not come to an end."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(requirements)]
    command += ["--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
    command += ["--vulnerability-service", service, "--timeout", str(_ANSWER_TIMEOUT_S)]
    try:
        ran = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    return read(ran.stdout.decode())


def find_service() -> str | None:
    """The first advisory service that knows what it ought to know."""
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / "requirements.txt"
        probe.write_text(f"{KNOWN_HOLE}\n")
        for service in SERVICES:
            if can_be_believed(run_pip_audit(probe, service, _PROBE_TIMEOUT_S)):
                return service
    return None


def main(requirements: Path) -> int:
    """Audit, and say so if that is not possible; returns the process's exit code."""
    service = find_service()
    if service is None:
        sys.stdout.write(
            f"{requirements}: NOT AUDITED: no advisory service within reach "
            f"(asked {' and '.join(SERVICES)} for the known holes of {KNOWN_HOLE})\n"
        )
        return 0
    passes, reason = verdict(run_pip_audit(requirements, service, _AUDIT_TIMEOUT_S))
    sys.stdout.write(f"{requirements}, by {service}: {reason}\n")
    return 0 if passes else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

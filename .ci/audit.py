"""Look the pinned dependencies up among known vulnerabilities; say so where that cannot be done.

pip-audit ends with success also when no package was found where it asks, as behind a mirror of
PyPI that has no advisories. Nothing here counts as audited that was not.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NOT_AUDITED = "not audited: no advisory service within reach"
_PROBE_LIMIT_S = 45
_LIMIT_S = 600
_SOCKET_TIMEOUT_S = 10
_UNREACHABLE = (
    "requests.exceptions.ConnectionError",
    "requests.exceptions.ProxyError",
    "requests.exceptions.ReadTimeout",
    "requests.exceptions.SSLError",
    "Could not connect to PyPI",
)
"""What pip-audit's last words are where its service does not answer."""


class AuditError(Exception):
    """pip-audit has failed; the message is the end of what it wrote."""


class UnreachableError(AuditError):
    """It could not ask its service."""


@dataclass(frozen=True)
class Verdict:
    """What the audit found."""

    text: str
    exit_code: int


def judge(report: Mapping[str, Any]) -> Verdict:
    """Decide what pip-audit's report means.

    Args:
        report: What it writes with `--format json`.
    """
    packages: Sequence[Mapping[str, Any]] = report["dependencies"]
    skipped = [package for package in packages if "skip_reason" in package]
    if len(skipped) == len(packages):
        return Verdict(NOT_AUDITED, 0)
    lines = [
        f"{package['name']} {package['version']}: {found['id']}, {_remedy(found['fix_versions'])}"
        for package in packages
        for found in package.get("vulns", ())
    ]
    lines += [f"{package['name']}: not audited: {package['skip_reason']}" for package in skipped]
    if lines:
        return Verdict("\n".join(lines), 1)
    return Verdict(f"{len(packages)} packages audited, no known vulnerabilities", 0)


def read_report(stdout: str, stderr: str) -> Mapping[str, Any]:
    """Take the report from what pip-audit wrote; its exit code tells nothing more.

    Raises:
        AuditError: If it wrote none.
        UnreachableError: If that is because its service does not answer.
    """
    try:
        report: Mapping[str, Any] = json.loads(stdout)
    except json.JSONDecodeError:
        last = "\n".join(stderr.strip().splitlines()[-3:])
        kind = UnreachableError if any(words in last for words in _UNREACHABLE) else AuditError
        raise kind(last or "pip-audit wrote nothing") from None
    return report


def audit(requirements: Path) -> Verdict:
    """Audit pinned requirements: first one, which tells whether there is a service to ask.

    Raises:
        AuditError: If pip-audit fails.
    """
    pins = [line for line in requirements.read_text().splitlines() if "==" in line]
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder, "probe.txt")
        probe.write_text(f"{pins[0]}\n")
        try:
            if judge(_ask(probe, _PROBE_LIMIT_S)).text == NOT_AUDITED:
                return Verdict(NOT_AUDITED, 0)
        except (UnreachableError, subprocess.TimeoutExpired):
            return Verdict(NOT_AUDITED, 0)
    return judge(_ask(requirements, _LIMIT_S))


def _ask(requirements: Path, limit_s: float) -> Mapping[str, Any]:
    command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--format", "json"]
    command += ["--progress-spinner", "off", "--timeout", str(_SOCKET_TIMEOUT_S)]
    process = subprocess.run(
        [*command, "--requirement", str(requirements)],
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,  # it ends with 1 where it finds something
    )
    return read_report(process.stdout, process.stderr)


def main() -> int:
    """Audit the file that the command line names."""
    try:
        verdict = audit(Path(sys.argv[1]))
    except (AuditError, subprocess.TimeoutExpired) as error:
        print(f"the audit failed: {error}", file=sys.stderr)
        return 1
    print(verdict.text)
    return verdict.exit_code


def _remedy(fix_versions: Sequence[str]) -> str:
    return f"fixed in {', '.join(fix_versions)}" if fix_versions else "not fixed yet"


if __name__ == "__main__":
    sys.exit(main())

import importlib.util
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).parents[3] / ".ci" / "audit.py"
SPEC = importlib.util.spec_from_file_location("ci_audit", PATH)
assert SPEC is not None
assert SPEC.loader is not None
audit = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(audit)

# As pip-audit 2.10 writes it where the index has no advisories.
SKIPPED = {
    "name": "requests",
    "skip_reason": "Dependency not found on PyPI and could not be audited: requests (2.19.0)",
}
SOUND = {"name": "pyyaml", "version": "6.0.2", "vulns": []}
VULNERABLE = {
    "name": "requests",
    "version": "2.19.0",
    "vulns": [
        {
            "id": "PYSEC-2018-28",
            "fix_versions": ["2.20.0"],
            "aliases": ["CVE-2018-18074"],
            "description": "The Requests package sends an HTTP Authorization header to an http URI",
        },
        {"id": "PYSEC-0000-1", "fix_versions": [], "aliases": [], "description": "N/A"},
    ],
}
UNREACHABLE = (
    "urllib3.exceptions.MaxRetryError: HTTPSConnectionPool(host='pypi.org', port=443)\n\n"
    "During handling of the above exception, another exception occurred:\n\n"
    "requests.exceptions.ProxyError: HTTPSConnectionPool(host='pypi.org', port=443): Max retries\n"
)


def report(*packages: Mapping[str, object]) -> dict[str, Any]:
    return {"dependencies": list(packages), "fixes": []}


class PipAudit:
    """Stands for the program: answers one report or error after another, and keeps what came."""

    def __init__(self, *answers: Mapping[str, Any] | Exception) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, requirements: Path, limit_s: float) -> Mapping[str, Any]:
        self.asked.append(requirements.read_text())
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def pins(tmp_path: Path) -> Path:
    path = tmp_path / "constraints.txt"
    path.write_text("# pinned\npyyaml==6.0.2\nrequests==2.19.0\n")
    return path


def test_packages_without_vulnerabilities_are_counted() -> None:
    verdict = audit.judge(report(SOUND, SOUND | {"name": "pip"}))

    assert verdict == audit.Verdict("2 packages audited, no known vulnerabilities", 0)


def test_each_vulnerability_is_listed_with_its_remedy() -> None:
    verdict = audit.judge(report(SOUND, VULNERABLE))

    assert verdict.exit_code == 1
    assert verdict.text.splitlines() == [
        "requests 2.19.0: PYSEC-2018-28, fixed in 2.20.0",
        "requests 2.19.0: PYSEC-0000-1, not fixed yet",
    ]


def test_what_was_audited_in_part_fails_and_names_the_rest() -> None:
    verdict = audit.judge(report(SOUND, SKIPPED))

    assert verdict.exit_code == 1
    assert verdict.text.startswith("requests: not audited: Dependency not found on PyPI")


@pytest.mark.parametrize("packages", [[SKIPPED], [SKIPPED, SKIPPED], []])
def test_what_was_not_audited_at_all_does_not_look_like_a_pass(
    packages: list[dict[str, object]],
) -> None:
    verdict = audit.judge(report(*packages))

    assert verdict == audit.Verdict("not audited: no advisory service within reach", 0)


def test_a_report_is_read_whatever_is_written_beside_it() -> None:
    assert audit.read_report(json.dumps(report(SOUND)), "WARNING: a word") == report(SOUND)


def test_a_service_out_of_reach_is_told_from_other_failures() -> None:
    with pytest.raises(audit.UnreachableError):
        audit.read_report("", UNREACHABLE)
    with pytest.raises(audit.AuditError, match="not pinned") as failure:
        audit.read_report("", "ERROR:pip_audit._cli:requirement pyyaml is not pinned")

    assert type(failure.value) is audit.AuditError


@pytest.mark.parametrize(
    "answer",
    [report(SKIPPED), audit.UnreachableError(), subprocess.TimeoutExpired("pip-audit", 45)],
    ids=["unknown", "unreachable", "silent"],
)
def test_without_a_service_one_package_is_asked_about_and_no_more(
    answer: Mapping[str, Any] | Exception, pins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = PipAudit(answer)
    monkeypatch.setattr(audit, "_ask", program)

    assert audit.audit(pins) == audit.Verdict(audit.NOT_AUDITED, 0)
    assert program.asked == ["pyyaml==6.0.2\n"]


def test_with_a_service_every_package_is_audited(
    pins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = PipAudit(report(SOUND), report(SOUND, VULNERABLE))
    monkeypatch.setattr(audit, "_ask", program)

    assert audit.audit(pins).exit_code == 1
    assert program.asked == ["pyyaml==6.0.2\n", pins.read_text()]


@pytest.mark.parametrize(
    "failure", [audit.UnreachableError("gone"), subprocess.TimeoutExpired("pip-audit", 600)]
)
def test_an_audit_that_breaks_off_fails(
    failure: Exception,
    pins: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(audit, "_ask", PipAudit(report(SOUND), failure))
    monkeypatch.setattr("sys.argv", ["audit.py", str(pins)])

    assert audit.main() == 1
    assert "the audit failed" in capsys.readouterr().err

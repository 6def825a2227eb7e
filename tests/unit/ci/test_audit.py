"""What is made of pip-audit's answers, as pip-audit 2.10 writes them."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

SOUND = (
    '{"dependencies": [{"name": "anyio", "version": "4.12.0", "vulns": []},'
    ' {"name": "mako", "version": "1.3.10", "vulns": []}], "fixes": []}'
)
HOLED = (
    '{"dependencies": [{"name": "anyio", "version": "4.12.0", "vulns": []},'
    ' {"name": "jinja2", "version": "2.4.1", "vulns": [{"id": "PYSEC-2014-8",'
    ' "fix_versions": ["2.7.2"], "aliases": ["CVE-2014-1402"], "description": "The default…"},'
    ' {"id": "PYSEC-2019-217", "fix_versions": [], "aliases": [], "description": "In Pallets…"}]}],'
    ' "fixes": []}'
)
SKIPPED = (  # with the exit code 0 and "No known vulnerabilities found"
    '{"dependencies": [{"name": "jinja2", "skip_reason": "Dependency not found on PyPI and could'
    ' not be audited: jinja2 (2.4.1)"}], "fixes": []}'
)
PARTLY = (
    '{"dependencies": [{"name": "anyio", "version": "4.12.0", "vulns": []}, {"name": "torch",'
    ' "skip_reason": "Dependency not found on PyPI and could not be audited: torch (2.13.0)"}],'
    ' "fixes": []}'
)
NOTHING = '{"dependencies": [], "fixes": []}'
BROKEN_OFF = ""  # with a traceback: requests.exceptions.ConnectionError


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    path = Path(__file__).parents[3] / ".ci" / "audit.py"
    spec = importlib.util.spec_from_file_location("audit_of_dependencies", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("probe", "is_believed"),
    [(HOLED, True), (SOUND, False), (SKIPPED, False), (NOTHING, False), (BROKEN_OFF, False)],
    ids=["knows the hole", "knows no hole", "skips", "says nothing", "out of reach"],
)
def test_a_service_is_believed_only_if_it_knows_a_known_hole(
    audit: ModuleType, probe: str, is_believed: bool
) -> None:
    assert audit.can_be_believed(audit.read(probe)) is is_believed


@pytest.mark.parametrize(
    ("output", "passes", "sentence"),
    [
        (SOUND, True, "2 packages, no known hole"),
        (HOLED, False, "jinja2 2.4.1: PYSEC-2014-8, fixed in 2.7.2"),
        (HOLED, False, "PYSEC-2019-217, fixed in no release yet"),
        (PARTLY, False, "only a part was audited; left out: torch"),
        (SKIPPED, False, "only a part was audited; left out: jinja2"),
        (NOTHING, False, "only a part was audited; left out: all"),
        (BROKEN_OFF, False, "the audit broke off"),
        ("[]", False, "the audit broke off"),
    ],
)
def test_once_a_service_answers_only_a_whole_audit_without_holes_passes(
    audit: ModuleType, output: str, passes: bool, sentence: str
) -> None:
    found, reason = audit.verdict(audit.read(output))
    assert found is passes
    assert sentence in reason


@pytest.mark.parametrize(
    ("answers", "exit_code", "sentence"),
    [
        ({}, 0, "NOT AUDITED: no advisory service within reach"),
        ({"pypi": (SKIPPED, SOUND)}, 0, "NOT AUDITED"),
        ({"pypi": (HOLED, SOUND)}, 0, "by pypi: 2 packages, no known hole"),
        ({"pypi": (SKIPPED, SOUND), "osv": (HOLED, HOLED)}, 1, "by osv: known holes"),
        ({"pypi": (HOLED, PARTLY)}, 1, "only a part was audited"),
        ({"pypi": (HOLED, BROKEN_OFF)}, 1, "the audit broke off"),
    ],
)
def test_only_a_service_out_of_reach_lets_unaudited_dependencies_pass(
    audit: ModuleType,
    answers: dict[str, tuple[str, str]],
    exit_code: int,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pinned = Path("constraints.txt")

    def answer(requirements: Path, service: str, _timeout_s: float) -> object:
        of_probe, of_pinned = answers.get(service, (BROKEN_OFF, BROKEN_OFF))
        return audit.read(of_pinned if requirements == pinned else of_probe)

    monkeypatch.setattr(audit, "run_pip_audit", answer)
    main: Callable[[Path], int] = audit.main
    assert main(pinned) == exit_code
    assert sentence in capsys.readouterr().out
